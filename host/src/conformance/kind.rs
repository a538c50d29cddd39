//! Which of the contracts a component is to keep: told by what it exports, before it is compiled.

use wasmparser::{Parser, Payload};

use crate::sources::Kind;

/// The kind of this component; what exports neither interface is taken for an adapter, and refused as one.
pub(crate) fn kind(wasm: &[u8]) -> Kind {
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload {
            Ok(Payload::Version { .. }) => depth += 1,
            Ok(Payload::End(_)) => depth = depth.saturating_sub(1),
            Ok(Payload::ComponentExportSection(exports)) if depth == 1 => {
                let mut names = exports.into_iter().flatten();
                // Of whatever version: loading says which one it must be.
                if names.any(|export| interface(export.name.name) == interface(crate::components::HOOKS)) {
                    return Kind::Policy;
                }
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    Kind::Adapter
}

/// The name of an interface without its version.
fn interface(name: &str) -> &str {
    name.split_once('@').map_or(name, |(interface, _)| interface)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_components_own_exports_tell_its_kind() {
        assert_eq!(kind(crate::builtin::POLICIES[0].1), Kind::Policy);
        assert_eq!(kind(crate::builtin::ADAPTERS[0].1), Kind::Adapter);
        assert_eq!(kind(crate::builtin::NORMALISER), Kind::Adapter);
        assert_eq!(kind(b"no component"), Kind::Adapter);
    }

    #[test]
    fn an_adapter_that_only_speaks_of_a_policys_interface_is_none() {
        // A section of the author's own, with a name of one letter.
        let said = crate::components::HOOKS.as_bytes();
        let section = [&[0, said.len() as u8 + 2, 1, b'x'], said].concat();
        let [adapter, policy] = [crate::builtin::ADAPTERS[0].1, crate::builtin::POLICIES[0].1];
        assert_eq!(kind(&[adapter, &section].concat()), Kind::Adapter);
        assert_eq!(kind(&[policy, &section].concat()), Kind::Policy);
    }
}
