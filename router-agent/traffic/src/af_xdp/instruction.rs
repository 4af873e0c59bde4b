//! Instructions of the kernel's virtual machine (RFC 9669), put together by hand.

/// A register. `R0` holds results, `R1` to `R5` arguments, which a call destroys; `R6` to `R9` are kept; `R10` points behind the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Register {
    R0,
    R1,
    R2,
    R3,
    R4,
    R6 = 6,
    R7,
    R8,
    R9,
    R10,
}

/// How many octets a load or store moves, as the opcode says it (RFC 9669 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Size {
    Four = 0x00,
    Two = 0x08,
    One = 0x10,
    Eight = 0x18,
}

/// When a jump is taken, comparing unsigned numbers of 64 bits (RFC 9669 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Condition {
    Equal = 0x10,
    Greater = 0x20,
    Unequal = 0x50,
    Less = 0xa0,
}

/// A function of the kernel (`linux/bpf.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Helper {
    MapLookUp = 1,
    Nanoseconds = 5,
    /// Cheaper, and up to a tick of the kernel's clock behind.
    CoarseNanoseconds = 160,
    RedirectByMap = 51,
    AdjustMetadata = 54,
    LookUpRoute = 69,
}

/// A map by its descriptor.
pub(super) type MapDescriptor = i32;

/// One instruction as the kernel takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Instruction {
    opcode: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

// Classes and operations that make up opcodes (RFC 9669 §3).
const LOAD_IMMEDIATE: u8 = 0x18;
const LOAD: u8 = 0x61;
const STORE_IMMEDIATE: u8 = 0x62;
const STORE: u8 = 0x63;
const ARITHMETIC: u8 = 0x07;
const JUMP: u8 = 0x05;
const WITH_REGISTER: u8 = 0x08;
const ADD: u8 = 0x00;
const SUBTRACT: u8 = 0x10;
const MULTIPLY: u8 = 0x20;
const OR: u8 = 0x40;
const AND: u8 = 0x50;
const SHIFT_LEFT: u8 = 0x60;
const SHIFT_RIGHT: u8 = 0x70;
const EXCLUSIVE_OR: u8 = 0xa0;
const MOVE: u8 = 0xb0;
const TO_BIG_ENDIAN: u8 = 0xdc;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
/// The immediate value is the descriptor of a map.
const A_MAP: u8 = 1;

/// A program whose jumps name places by `L`.
#[derive(Debug)]
pub(super) struct Assembler<L> {
    code: Vec<Instruction>,
    places: Vec<(L, usize)>,
    jumps: Vec<(usize, L)>,
}

/// A jump leads nowhere, backwards, or further than an instruction can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a jump of the XDP program leads nowhere")]
pub(super) struct Astray;

impl<L: Copy + PartialEq> Assembler<L> {
    pub(super) const fn new() -> Self {
        Self { code: Vec::new(), places: Vec::new(), jumps: Vec::new() }
    }

    fn put(&mut self, opcode: u8, destination: u8, source: u8, offset: i16, immediate: i32) {
        let registers = if cfg!(target_endian = "little") { destination | source << 4 } else { destination << 4 | source };
        self.code.push(Instruction { opcode, registers, offset, immediate });
    }

    /// What follows is at `place`.
    pub(super) fn place(&mut self, place: L) {
        self.places.push((place, self.code.len()));
    }

    pub(super) fn load(&mut self, size: Size, to: Register, from: Register, offset: i16) {
        self.put(LOAD | size as u8, to as u8, from as u8, offset, 0);
    }

    pub(super) fn store(&mut self, size: Size, to: Register, offset: i16, from: Register) {
        self.put(STORE | size as u8, to as u8, from as u8, offset, 0);
    }

    pub(super) fn store_value(&mut self, size: Size, to: Register, offset: i16, value: i32) {
        self.put(STORE_IMMEDIATE | size as u8, to as u8, 0, offset, value);
    }

    pub(super) fn copy(&mut self, to: Register, from: Register) {
        self.put(ARITHMETIC | MOVE | WITH_REGISTER, to as u8, from as u8, 0, 0);
    }

    pub(super) fn set(&mut self, to: Register, value: i32) {
        self.put(ARITHMETIC | MOVE, to as u8, 0, 0, value);
    }

    pub(super) fn set_map(&mut self, to: Register, map: MapDescriptor) {
        self.put(LOAD_IMMEDIATE, to as u8, A_MAP, 0, map);
        self.put(0, 0, 0, 0, 0);
    }

    pub(super) fn add(&mut self, to: Register, value: i32) {
        self.put(ARITHMETIC | ADD, to as u8, 0, 0, value);
    }

    pub(super) fn add_register(&mut self, to: Register, what: Register) {
        self.put(ARITHMETIC | ADD | WITH_REGISTER, to as u8, what as u8, 0, 0);
    }

    pub(super) fn subtract(&mut self, from: Register, what: Register) {
        self.put(ARITHMETIC | SUBTRACT | WITH_REGISTER, from as u8, what as u8, 0, 0);
    }

    pub(super) fn and(&mut self, to: Register, mask: i32) {
        self.put(ARITHMETIC | AND, to as u8, 0, 0, mask);
    }

    pub(super) fn multiply(&mut self, to: Register, by: Register) {
        self.put(ARITHMETIC | MULTIPLY | WITH_REGISTER, to as u8, by as u8, 0, 0);
    }

    pub(super) fn or(&mut self, to: Register, what: Register) {
        self.put(ARITHMETIC | OR | WITH_REGISTER, to as u8, what as u8, 0, 0);
    }

    pub(super) fn exclusive_or(&mut self, to: Register, what: Register) {
        self.put(ARITHMETIC | EXCLUSIVE_OR | WITH_REGISTER, to as u8, what as u8, 0, 0);
    }

    pub(super) fn shift_left(&mut self, number: Register, bits: i32) {
        self.put(ARITHMETIC | SHIFT_LEFT, number as u8, 0, 0, bits);
    }

    pub(super) fn shift_right(&mut self, number: Register, bits: i32) {
        self.put(ARITHMETIC | SHIFT_RIGHT, number as u8, 0, 0, bits);
    }

    /// All 64 bits.
    pub(super) fn set_wide(&mut self, to: Register, value: u64) {
        let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
        self.put(LOAD_IMMEDIATE, to as u8, 0, 0, i32::from_le_bytes([a, b, c, d]));
        self.put(0, 0, 0, 0, i32::from_le_bytes([e, f, g, h]));
    }

    /// Sixteen bits from network order to the machine's.
    pub(super) fn turn_from_network_order(&mut self, number: Register) {
        self.put(TO_BIG_ENDIAN, number as u8, 0, 0, 16);
    }

    pub(super) fn jump(&mut self, to: L) {
        self.jumps.push((self.code.len(), to));
        self.put(JUMP, 0, 0, 0, 0);
    }

    pub(super) fn jump_if(&mut self, left: Register, condition: Condition, right: i32, to: L) {
        self.jumps.push((self.code.len(), to));
        self.put(JUMP | condition as u8, left as u8, 0, 0, right);
    }

    pub(super) fn jump_if_register(&mut self, left: Register, condition: Condition, right: Register, to: L) {
        self.jumps.push((self.code.len(), to));
        self.put(JUMP | condition as u8 | WITH_REGISTER, left as u8, right as u8, 0, 0);
    }

    pub(super) fn call(&mut self, helper: Helper) {
        self.put(CALL, 0, 0, 0, helper as i32);
    }

    pub(super) fn exit(&mut self) {
        self.put(EXIT, 0, 0, 0, 0);
    }

    /// The program, with each jump's distance in it.
    pub(super) fn finish(mut self) -> Result<Vec<Instruction>, Astray> {
        for (at, to) in self.jumps {
            let target = self.places.iter().find(|(place, _)| *place == to).map(|(_, target)| *target).ok_or(Astray)?;
            let distance = target.checked_sub(at.saturating_add(1)).and_then(|distance| i16::try_from(distance).ok()).ok_or(Astray)?;
            self.code.get_mut(at).ok_or(Astray)?.offset = distance;
        }
        Ok(self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_are_counted_from_the_next_instruction_and_lead_forward() {
        let mut code = Assembler::new();
        code.jump_if(Register::R1, Condition::Equal, 7, 'a');
        code.set(Register::R0, 1);
        code.place('a');
        code.exit();
        let offsets: Vec<i16> = code.finish().unwrap().iter().map(|instruction| instruction.offset).collect();
        assert_eq!(offsets, [1, 0, 0]);

        let mut nowhere = Assembler::new();
        nowhere.jump('b');
        assert_eq!(nowhere.finish(), Err(Astray));
        let mut back = Assembler::new();
        back.place('c');
        back.jump('c');
        assert_eq!(back.finish(), Err(Astray));
    }

    /// The opcodes of RFC 9669, table in appendix A.
    #[test]
    fn instructions_are_those_of_the_standard() {
        let mut code = Assembler::new();
        code.load(Size::Two, Register::R2, Register::R7, 12);
        code.store(Size::Four, Register::R10, -8, Register::R2);
        code.store_value(Size::Eight, Register::R10, -16, 0);
        code.copy(Register::R6, Register::R1);
        code.set(Register::R0, 2);
        code.add(Register::R2, -3);
        code.add_register(Register::R2, Register::R3);
        code.subtract(Register::R3, Register::R2);
        code.and(Register::R2, 0xff);
        code.turn_from_network_order(Register::R2);
        code.multiply(Register::R2, Register::R3);
        code.or(Register::R2, Register::R3);
        code.exclusive_or(Register::R2, Register::R3);
        code.shift_left(Register::R2, 32);
        code.shift_right(Register::R2, 32);
        code.set_wide(Register::R2, 1 << 40 | 7);
        code.place(());
        let opcodes: Vec<u8> = code.finish().unwrap().iter().map(|instruction| instruction.opcode).collect();
        assert_eq!(opcodes, [0x69, 0x63, 0x7a, 0xbf, 0xb7, 0x07, 0x0f, 0x1f, 0x57, 0xdc, 0x2f, 0x4f, 0xaf, 0x67, 0x77, 0x18, 0]);
    }
}
