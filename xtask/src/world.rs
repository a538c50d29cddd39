//! Writes the world of the gateway component: one plain-named import per slot of an adapter or a policy, each with the
//! interface of `wit/adapter/chat.wit` or `wit/policy/policy.wit` spelt out, since Spin takes no other form for several instances of one interface.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use witgate_compose::{ADAPTER_SLOTS, POLICY_SLOTS};

/// The text of `components/gateway/wit/world.wit`; `chat` is that of `wit/adapter/chat.wit`, `policy` of
/// `wit/policy/policy.wit`.
pub fn generate(chat: &str, policy: &str) -> Result<String> {
    let chat = interface(chat, "chat", "adapter")?;
    let hooks = interface(policy, "hooks", "policy")?;
    let mut out = String::from(
        "// Written by `cargo xtask wit` from wit/adapter/chat.wit. Do not edit: change that file, or the slots in\n\
         // compose/src/lib.rs, and run it again.\n\n\
         /// The gateway as a component.\npackage witgate:gateway@0.1.0;\n\n\
         /// What the gateway was composed of.\ninterface composition {\n    \
         /// The configuration, where the runtime mounts none; empty for none.\n    configuration: func() -> string;\n    \
         /// Which slot holds which adapter: what the configuration calls it, and the slot's name. Empty where each slot\n    \
         /// holds what it is called after.\n    adapters: func() -> list<tuple<string, string>>;\n    \
         /// The same for policies.\n    policies: func() -> list<tuple<string, string>>;\n}\n\n\
         /// What the gateway needs: of WASI, the normaliser, and an adapter or a policy in each slot.\nworld gateway {\n    \
         import wasi:http/types@0.3.0;\n    import wasi:http/client@0.3.0;\n    \
         import wasi:clocks/monotonic-clock@0.3.0;\n    import wasi:clocks/system-clock@0.3.0;\n    \
         import wasi:random/random@0.3.0;\n    export wasi:http/handler@0.3.0;\n\n    \
         /// Spin's variables.\n    import wasi:config/store@0.2.0-draft-2024-09-27;\n\n    \
         /// Spin's key-value store.\n    import wasi:keyvalue/store@0.2.0-draft2;\n    \
         import wasi:keyvalue/atomics@0.2.0-draft2;\n\n    \
         /// What is in the slots.\n    import composition;\n\n    \
         /// The dialects that clients speak.\n    import witgate:normaliser/dialects@0.1.0;\n",
    );
    let slots = ADAPTER_SLOTS.iter().map(|slot| (slot, &chat)).chain(POLICY_SLOTS.iter().map(|slot| (slot, &hooks)));
    for ((name, what), body) in slots {
        write!(out, "\n    /// {what}\n    import {name}: interface {{\n{body}    }}\n")?;
    }
    out.push_str("}\n");
    Ok(out)
}

/// The inside of an interface, without comments, its `use` of the package's own types made absolute, indented for a world.
fn interface(text: &str, name: &str, package: &str) -> Result<String> {
    let none = || format!("wit/{package}: no `interface {name} {{`");
    let (_, rest) = text.split_once(&format!("interface {name} {{\n")).with_context(none)?;
    let (body, _) =
        rest.split_once("\n}\n").with_context(|| format!("wit/{package}: `interface {name}` does not end"))?;
    let mut out = String::new();
    for line in body.lines().filter(|line| !line.trim_start().starts_with("//")) {
        let line = line.replace("use types.{", &format!("use witgate:{package}/types@0.1.0.{{"));
        if line.trim().is_empty() {
            continue;
        }
        writeln!(out, "    {line}")?;
    }
    Ok(out)
}
