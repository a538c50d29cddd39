//! Writes the references for authors, `docs/adapter-contract.md` and `docs/policy-contract.md`, from the WIT's own comments.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use wit_parser::{Docs, Function, Resolve, Type, TypeDefKind, TypeId};

/// The reference as markdown: of the last package of `packages`, those before it being what it uses.
pub fn generate(packages: &[std::path::PathBuf], folder: &str, title: &str, interfaces: [&str; 2]) -> Result<String> {
    let mut resolve = Resolve::default();
    let mut last = None;
    for wit in packages {
        last = Some(resolve.push_dir(wit).with_context(|| format!("read {}", wit.display()))?.0);
    }
    let package = last.context("no package")?;
    let mut out = format!(
        "<!-- Written by `cargo xtask wit` from {folder}. Do not edit: change the WIT and run it again. -->\n\n\
         # `{}`: {title}\n\n",
        resolve.packages[package].name
    );
    text(&mut out, "", &resolve.packages[package].docs);
    for name in interfaces {
        let interface = &resolve.interfaces[resolve.packages[package].interfaces[name]];
        writeln!(out, "## Interface `{name}`\n")?;
        text(&mut out, "", &interface.docs);
        for function in interface.functions.values() {
            signature(&mut out, &resolve, function)?;
        }
        for (name, id) in &interface.types {
            describe(&mut out, &resolve, name, *id)?;
        }
    }
    Ok(format!("{}\n", out.trim_end()))
}

fn text(out: &mut String, indent: &str, docs: &Docs) {
    if let Some(contents) = &docs.contents {
        for line in contents.trim_end().lines() {
            let _ = writeln!(out, "{}", format!("{indent}{line}").trim_end());
        }
        out.push('\n');
    }
}

fn signature(out: &mut String, resolve: &Resolve, function: &Function) -> Result<()> {
    let parameters: Vec<_> = function
        .params
        .iter()
        .filter(|param| param.name != "self")
        .map(|param| format!("{}: {}", param.name, name(resolve, &param.ty)))
        .collect();
    let item = function.item_name();
    let title = if item.is_empty() { function.name.as_str() } else { item };
    let title = if function.name.starts_with("[constructor]") { "constructor" } else { title };
    write!(out, "### `{title}({})", parameters.join(", "))?;
    match &function.result {
        Some(result) if title != "constructor" => writeln!(out, " -> {}`\n", name(resolve, result))?,
        _ => writeln!(out, "`\n")?,
    }
    text(out, "", &function.docs);
    Ok(())
}

fn describe(out: &mut String, resolve: &Resolve, type_name: &str, id: TypeId) -> Result<()> {
    let def = &resolve.types[id];
    let mut members = Vec::new();
    let what = match &def.kind {
        TypeDefKind::Record(record) => {
            members.extend(record.fields.iter().map(|f| (f.name.clone(), Some(name(resolve, &f.ty)), &f.docs)));
            "record".to_owned()
        }
        TypeDefKind::Variant(variant) => {
            members.extend(variant.cases.iter().map(|c| (c.name.clone(), c.ty.map(|ty| name(resolve, &ty)), &c.docs)));
            "variant".to_owned()
        }
        // Named here, described with its own interface; a resource by its functions.
        TypeDefKind::Type(Type::Id(target)) if resolve.types[*target].owner != def.owner => return Ok(()),
        TypeDefKind::Resource => return Ok(()),
        TypeDefKind::Type(ty) => format!("type = {}", name(resolve, ty)),
        _ => format!("type = {}", anonymous(resolve, id)),
    };
    writeln!(out, "### `{type_name}` ({what})\n")?;
    text(out, "", &def.docs);
    for (member, ty, docs) in &members {
        let ty = ty.as_ref().map(|ty| format!(" `{ty}`")).unwrap_or_default();
        let docs = docs.contents.as_deref().unwrap_or_default().trim().replace('\n', "\n  ");
        writeln!(out, "- **`{member}`**{ty}: {docs}")?;
    }
    if !members.is_empty() {
        out.push('\n');
    }
    Ok(())
}

fn name(resolve: &Resolve, ty: &Type) -> String {
    match ty {
        Type::Id(id) => match &resolve.types[*id].name {
            Some(name) => name.clone(),
            None => anonymous(resolve, *id),
        },
        Type::Bool => "bool".into(),
        Type::U8 => "u8".into(),
        Type::U16 => "u16".into(),
        Type::U32 => "u32".into(),
        Type::U64 => "u64".into(),
        Type::S64 => "s64".into(),
        Type::F64 => "f64".into(),
        Type::String => "string".into(),
        other => format!("{other:?}").to_lowercase(),
    }
}

fn anonymous(resolve: &Resolve, id: TypeId) -> String {
    match &resolve.types[id].kind {
        TypeDefKind::Option(ty) => format!("option<{}>", name(resolve, ty)),
        TypeDefKind::List(ty) => format!("list<{}>", name(resolve, ty)),
        TypeDefKind::Result(result) => {
            let part = |ty: &Option<Type>| ty.as_ref().map_or_else(|| "_".to_owned(), |ty| name(resolve, ty));
            format!("result<{}, {}>", part(&result.ok), part(&result.err))
        }
        TypeDefKind::Tuple(tuple) => {
            format!("tuple<{}>", tuple.types.iter().map(|ty| name(resolve, ty)).collect::<Vec<_>>().join(", "))
        }
        TypeDefKind::Handle(wit_parser::Handle::Own(id) | wit_parser::Handle::Borrow(id)) => {
            resolve.types[*id].name.clone().unwrap_or_default()
        }
        other => other.as_str().to_owned(),
    }
}
