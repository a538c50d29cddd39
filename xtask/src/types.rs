//! Writes the Rust types of `crates/model` from the WIT: each contract has one source, its documentation included.

use std::collections::HashMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, bail};
use wit_parser::{Docs, Handle, Resolve, Type, TypeDefKind, TypeId};

/// The Rust source of the types that `interface` defines, in the last package of `packages`; those before it are what it
/// uses.
pub fn generate(packages: &[std::path::PathBuf], interface: &str) -> Result<String> {
    let mut resolve = Resolve::default();
    let mut last = None;
    for wit in packages {
        last = Some(resolve.push_dir(wit).with_context(|| format!("read {}", wit.display()))?.0);
    }
    let package = last.context("no package")?;
    let id = resolve.packages[package].interfaces[interface];
    let types = &resolve.interfaces[id].types;
    let mut defaults = HashMap::new();
    let mut out = format!(
        "// Written by `cargo xtask wit` from the interface `{interface}` of {}. Do not edit: change the WIT and run it \
         again.\n\n//! The values that cross `{interface}`, as Rust types.\n\nuse serde::{{Deserialize, Serialize}};\n",
        resolve.packages[package].name
    );
    if packages.len() > 1 {
        out.push_str("\nuse crate::types::*;\n");
    }
    for (name, id) in types {
        let def = &resolve.types[*id];
        // A `use`d type, or a resource: the one is generated with its own interface, the other is no value.
        if matches!(&def.kind, TypeDefKind::Type(Type::Id(target)) if resolve.types[*target].owner != def.owner)
            || matches!(def.kind, TypeDefKind::Resource)
        {
            continue;
        }
        out.push('\n');
        docs(&mut out, "", &def.docs);
        let camel = camel(name);
        match &def.kind {
            TypeDefKind::Type(target) => {
                writeln!(out, "pub type {camel} = {};", rust(&resolve, target)?)?;
            }
            TypeDefKind::Tuple(_) | TypeDefKind::List(_) => {
                writeln!(out, "pub type {camel} = {};", rust_def(&resolve, *id)?)?;
            }
            TypeDefKind::Record(record) => {
                let default = has_default(&resolve, *id, &mut defaults);
                derives(&mut out, "record", default);
                writeln!(out, "pub struct {camel} {{")?;
                for field in &record.fields {
                    docs(&mut out, "    ", &field.docs);
                    let ident = field.name.replace('-', "_");
                    if ident != field.name {
                        writeln!(out, "    #[cfg_attr(feature = \"wasmtime\", component(name = \"{}\"))]", field.name)?;
                    }
                    writeln!(out, "    pub {ident}: {},", rust(&resolve, &field.ty)?)?;
                }
                out.push_str("}\n");
            }
            TypeDefKind::Variant(variant) => {
                derives(&mut out, "variant", false);
                writeln!(out, "#[serde(rename_all = \"kebab-case\")]")?;
                writeln!(out, "pub enum {camel} {{")?;
                for case in &variant.cases {
                    docs(&mut out, "    ", &case.docs);
                    writeln!(out, "    #[cfg_attr(feature = \"wasmtime\", component(name = \"{}\"))]", case.name)?;
                    match &case.ty {
                        Some(ty) => {
                            writeln!(out, "    {}({}),", self::camel(&case.name), rust(&resolve, ty)?)?;
                        }
                        None => writeln!(out, "    {},", self::camel(&case.name))?,
                    }
                }
                out.push_str("}\n");
            }
            other => bail!("type {name}: {} is not used in this contract", other.as_str()),
        }
    }
    Ok(out)
}

fn derives(out: &mut String, kind: &str, default: bool) {
    let default = if default { "Default, " } else { "" };
    let _ = writeln!(out, "#[derive(Clone, Debug, {default}PartialEq, Serialize, Deserialize)]");
    let _ = writeln!(
        out,
        "#[cfg_attr(feature = \"wasmtime\", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, \
         wasmtime::component::Lower), component({kind}))]"
    );
}

fn docs(out: &mut String, indent: &str, docs: &Docs) {
    for line in docs.contents.as_deref().unwrap_or_default().lines() {
        let _ = writeln!(out, "{}", format!("{indent}/// {line}").trim_end());
    }
}

fn camel(name: &str) -> String {
    name.split('-')
        .map(|word| {
            let mut letters = word.chars();
            letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
        })
        .collect()
}

fn rust(resolve: &Resolve, ty: &Type) -> Result<String> {
    Ok(match ty {
        Type::Bool => "bool".into(),
        Type::U8 => "u8".into(),
        Type::U16 => "u16".into(),
        Type::U32 => "u32".into(),
        Type::U64 => "u64".into(),
        Type::S64 => "i64".into(),
        Type::F64 => "f64".into(),
        Type::String => "String".into(),
        Type::Id(id) => match &resolve.types[*id].name {
            Some(name) => camel(name),
            None => rust_def(resolve, *id)?,
        },
        other => bail!("{other:?} is not used in this contract"),
    })
}

fn rust_def(resolve: &Resolve, id: TypeId) -> Result<String> {
    Ok(match &resolve.types[id].kind {
        TypeDefKind::Option(ty) => format!("Option<{}>", rust(resolve, ty)?),
        TypeDefKind::List(ty) => format!("Vec<{}>", rust(resolve, ty)?),
        TypeDefKind::Tuple(tuple) => {
            let types = tuple.types.iter().map(|ty| rust(resolve, ty)).collect::<Result<Vec<_>>>()?;
            format!("({})", types.join(", "))
        }
        TypeDefKind::Handle(Handle::Own(_) | Handle::Borrow(_)) => bail!("no handles in this contract"),
        other => bail!("{} is not used in this contract", other.as_str()),
    })
}

/// Whether every field of record `id` has a default, so that the record may derive one.
fn has_default(resolve: &Resolve, id: TypeId, known: &mut HashMap<TypeId, bool>) -> bool {
    if let Some(known) = known.get(&id) {
        return *known;
    }
    let default = match &resolve.types[id].kind {
        TypeDefKind::Record(record) => record.fields.iter().all(|field| match &field.ty {
            Type::Id(id) => has_default(resolve, *id, known),
            _ => true,
        }),
        TypeDefKind::Option(_) | TypeDefKind::List(_) => true,
        TypeDefKind::Type(Type::Id(id)) => has_default(resolve, *id, known),
        TypeDefKind::Type(_) => true,
        TypeDefKind::Tuple(tuple) => tuple.types.iter().all(|ty| !matches!(ty, Type::Id(_))),
        _ => false,
    };
    known.insert(id, default);
    default
}
