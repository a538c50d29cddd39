//! The part that tells the gateway what it was composed of: a component with three constant functions.

use std::borrow::Cow;

use wasm_encoder::{
    Alias, CanonicalFunctionSection, CanonicalOption, CodeSection, Component, ComponentAliasSection,
    ComponentExportKind, ComponentExportSection, ComponentInstanceSection, ComponentTypeSection, ComponentValType,
    ConstExpr, DataSection, ExportKind, ExportSection, Function, FunctionSection, InstanceSection, MemorySection,
    MemoryType, Module, ModuleArg, ModuleSection, PrimitiveValType, TypeSection, ValType,
};

use crate::{COMPOSITION, Part};

/// One page of linear memory, in bytes.
const PAGE: usize = 64 * 1024;

/// The part that answers `configuration`, and which slot holds what the configuration calls so: pairs of a name and a slot.
/// With nothing at all each slot holds what it is called after.
pub fn composition(configuration: &str, adapters: &[(String, String)], policies: &[(String, String)]) -> Part<'static> {
    // The memory: the answers of the functions, each the address and the length of a text or a list, and then those.
    let mut data = vec![0; 24];
    let put = |at: usize, what: (usize, usize), data: &mut Vec<u8>| {
        // What is larger than the memory of a component does not get here: configurations have a bound.
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
        let pair: Vec<u8> = [number(what.0), number(what.1)].concat();
        if let Some(place) = data.get_mut(at..at + 8) {
            place.copy_from_slice(&pair);
        }
    };
    let text = |text: &str, data: &mut Vec<u8>| {
        let at = data.len();
        data.extend_from_slice(text.as_bytes());
        (at, text.len())
    };
    let configuration = text(configuration, &mut data);
    put(0, configuration, &mut data);
    for (at, pairs) in [(8, adapters), (16, policies)] {
        data.resize(data.len().next_multiple_of(4), 0);
        let list = data.len();
        put(at, (list, pairs.len()), &mut data);
        data.resize(list + 16 * pairs.len(), 0);
        for (n, (name, slot)) in pairs.iter().enumerate() {
            for (m, word) in [name, slot].into_iter().enumerate() {
                let place = text(word, &mut data);
                put(list + 16 * n + 8 * m, place, &mut data);
            }
        }
    }
    Part {
        name: "the composition".to_owned(),
        wasm: Cow::Owned(component(&module(&data))),
        fills: vec![(COMPOSITION.to_owned(), COMPOSITION.to_owned())],
    }
}

/// The functions, by the addresses of their answers.
const FUNCTIONS: [(&str, i32); 3] = [("configuration", 0), ("adapters", 8), ("policies", 16)];

/// A core module with this memory.
fn module(data: &[u8]) -> Module {
    let (mut types, mut functions, mut memories) = (TypeSection::new(), FunctionSection::new(), MemorySection::new());
    let (mut exports, mut code, mut section) = (ExportSection::new(), CodeSection::new(), DataSection::new());
    types.ty().function([], [ValType::I32]);
    let minimum = data.len().div_ceil(PAGE) as u64;
    memories.memory(MemoryType {
        minimum,
        maximum: Some(minimum),
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    exports.export("memory", ExportKind::Memory, 0);
    for (index, (name, address)) in (0..).zip(FUNCTIONS) {
        functions.function(0);
        exports.export(name, ExportKind::Func, index);
        let mut body = Function::new([]);
        body.instructions().i32_const(address).end();
        code.function(&body);
    }
    section.active(0, &ConstExpr::i32_const(0), data.iter().copied());
    let mut module = Module::new();
    module.section(&types).section(&functions).section(&memories).section(&exports).section(&code).section(&section);
    module
}

/// The component around it.
fn component(module: &Module) -> Vec<u8> {
    let mut component = Component::new();
    component.section(&ModuleSection(module));
    let mut instances = InstanceSection::new();
    instances.instantiate::<_, &str>(0, std::iter::empty::<(&str, ModuleArg)>());
    component.section(&instances);

    let mut aliases = ComponentAliasSection::new();
    aliases.alias(Alias::CoreInstanceExport { instance: 0, kind: ExportKind::Memory, name: "memory" });
    for (name, _) in FUNCTIONS {
        aliases.alias(Alias::CoreInstanceExport { instance: 0, kind: ExportKind::Func, name });
    }
    component.section(&aliases);

    // Types 0 and 1: a pair of texts, and a list of them; 2 and 3: the functions.
    let string = ComponentValType::Primitive(PrimitiveValType::String);
    let mut types = ComponentTypeSection::new();
    types.defined_type().tuple([string, string]);
    types.defined_type().list(ComponentValType::Type(0));
    let none = || std::iter::empty::<(&str, ComponentValType)>();
    types.function().params(none()).result(Some(string));
    types.function().params(none()).result(Some(ComponentValType::Type(1)));
    component.section(&types);

    let mut lifted = CanonicalFunctionSection::new();
    for (index, (_, address)) in (0..).zip(FUNCTIONS) {
        let ty = if address == 0 { 2 } else { 3 };
        lifted.lift(index, ty, [CanonicalOption::Memory(0), CanonicalOption::UTF8]);
    }
    component.section(&lifted);

    let mut instances = ComponentInstanceSection::new();
    instances.export_items(
        (0..).zip(FUNCTIONS).map(|(index, (name, _))| (name, ComponentExportKind::Func, index)).collect::<Vec<_>>(),
    );
    component.section(&instances);
    let mut exports = ComponentExportSection::new();
    exports.export(COMPOSITION, ComponentExportKind::Instance, 0, None);
    component.section(&exports);
    component.finish()
}
