//! Compiles the state machines of this crate from their tables.

fn main() -> Result<(), fsm_specs::Error> {
    fsm_specs::generate(&["traffic/packet"])
}
