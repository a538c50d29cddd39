//! The store in memory does what every store does.

mod conformance;

use witgate_gateway::state::Memory;

#[test]
fn memory_conforms() {
    let runtime = conformance::runtime();
    conformance::conforms(&runtime, &Memory::default(), true);
}

#[test]
fn memory_is_bounded() {
    let runtime = conformance::runtime();
    conformance::is_bounded(&runtime, &Memory::new(100_000), 100_000);
}
