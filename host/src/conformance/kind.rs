//! Which of the contracts a component is to keep: told by what it exports, before it is compiled.

use wasmparser::{Parser, Payload};

/// A kind of component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Adapter,
    Policy,
}

/// The kind of this component; what exports neither interface is taken for an adapter, and refused as one.
pub(super) fn kind(wasm: &[u8]) -> Kind {
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload {
            Ok(Payload::Version { .. }) => depth += 1,
            Ok(Payload::End(_)) => depth = depth.saturating_sub(1),
            Ok(Payload::ComponentExportSection(exports)) if depth == 1 => {
                let mut names = exports.into_iter().flatten();
                if names.any(|export| export.name.name == crate::components::HOOKS) {
                    return Kind::Policy;
                }
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    Kind::Adapter
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
}
