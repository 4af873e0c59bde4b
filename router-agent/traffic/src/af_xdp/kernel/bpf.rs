//! Maps and programs of the kernel's virtual machine (`bpf(2)`, `union bpf_attr`).

use std::ffi::CStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;

use super::last_error;
use crate::af_xdp::instruction::Instruction;

// Commands (`enum bpf_cmd`).
const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE: libc::c_int = 2;
const PROGRAM_LOAD: libc::c_int = 5;
const PROGRAM_BY_ID: libc::c_int = 13;
const INFORMATION: libc::c_int = 15;
/// `BPF_PROG_TYPE_XDP`.
const XDP: u32 = 6;
/// What the kernel's function for routes asks of programs that call it; the program is this project's, under its licence.
const LICENCE: &CStr = c"Dual MIT/GPL";
/// Room for what the kernel says of a program that it refuses.
const LOG_LEN: usize = 64 * 1024;
/// Octets of a program's name.
const NAME_LEN: usize = 16;

/// What a map is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(in crate::af_xdp) enum MapKind {
    /// Keeps what was used lately, and forgets the rest when it is full (`BPF_MAP_TYPE_LRU_HASH`).
    Recent = 9,
    /// AF_XDP sockets by number (`BPF_MAP_TYPE_XSKMAP`).
    Sockets = 17,
}

/// A map.
#[derive(Debug)]
pub(in crate::af_xdp) struct Map(OwnedFd);

/// A program that the kernel has found harmless.
#[derive(Debug)]
pub(in crate::af_xdp) struct Program(OwnedFd);

/// `union bpf_attr` of `BPF_MAP_CREATE`, up to what is used.
#[repr(C)]
struct CreateMap {
    kind: u32,
    key_len: u32,
    value_len: u32,
    entries: u32,
    flags: u32,
}

/// The same of `BPF_MAP_UPDATE_ELEM`.
#[repr(C)]
struct UpdateMap {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The same of `BPF_PROG_LOAD`.
#[repr(C)]
struct LoadProgram {
    kind: u32,
    instructions: u32,
    code: u64,
    licence: u64,
    log_level: u32,
    log_len: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; NAME_LEN],
}

/// The same of `BPF_PROG_GET_FD_BY_ID`.
#[repr(C)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

/// The same of `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct AskInformation {
    object: u32,
    len: u32,
    information: u64,
}

/// `struct bpf_prog_info` up to the name.
#[repr(C)]
#[derive(Default)]
struct Information {
    before: [u64; 8],
    name: [u8; NAME_LEN],
}

/// Calls the kernel with a command's part of `union bpf_attr`; the kernel takes what is not given as zero.
fn call<T>(command: libc::c_int, attributes: &mut T) -> Result<RawFd, Errno> {
    // SAFETY: `attributes` is a plain structure of so many octets, and the kernel is done with it when the call returns. The pointers in it
    // are to values that its makers below keep alive until then.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if answer < 0 { Err(last_error()) } else { RawFd::try_from(answer).map_err(|_| Errno::EOVERFLOW) }
}

/// The descriptor that a call has made.
fn owned(descriptor: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just given this descriptor to us and to nobody else.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

fn pointer<T>(value: &T) -> u64 {
    std::ptr::from_ref(value) as u64
}

impl Map {
    /// Makes a map with keys and values of so many octets.
    pub(in crate::af_xdp) fn new(kind: MapKind, (key_len, value_len): (u32, u32), entries: u32) -> Result<Self, Errno> {
        let mut attributes = CreateMap { kind: kind as u32, key_len, value_len, entries, flags: 0 };
        call(MAP_CREATE, &mut attributes).map(|descriptor| Self(owned(descriptor)))
    }

    /// Sets an entry of a map whose keys and values are 32 bits.
    pub(in crate::af_xdp) fn set(&self, key: u32, value: u32) -> Result<(), Errno> {
        let mut attributes =
            UpdateMap { map: self.descriptor().cast_unsigned(), padding: 0, key: pointer(&key), value: pointer(&value), flags: 0 };
        call(MAP_UPDATE, &mut attributes).map(drop)
    }

    /// Its number in this process, as programs name it.
    pub(in crate::af_xdp) fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Program {
    /// Has the kernel take a program under `name`. The error comes with the last line of what the kernel says of it.
    pub(in crate::af_xdp) fn load(code: &[Instruction], name: &str) -> Result<Self, (Errno, String)> {
        let mut log = vec![0_u8; LOG_LEN];
        let mut padded = [0; NAME_LEN];
        padded.iter_mut().zip(name.bytes().take(NAME_LEN - 1)).for_each(|(place, byte)| *place = byte);
        let mut attributes = LoadProgram {
            kind: XDP,
            instructions: u32::try_from(code.len()).unwrap_or(u32::MAX),
            code: code.as_ptr() as u64,
            licence: LICENCE.as_ptr() as u64,
            log_level: 0,
            log_len: 0,
            log: 0,
            kernel_version: 0,
            flags: 0,
            name: padded,
        };
        let refused = match call(PROGRAM_LOAD, &mut attributes) {
            Ok(descriptor) => return Ok(Self(owned(descriptor))),
            Err(errno) => errno,
        };
        // Once more, to be told why.
        (attributes.log_level, attributes.log_len, attributes.log) = (1, LOG_LEN as u32, log.as_mut_ptr() as u64);
        match call(PROGRAM_LOAD, &mut attributes) {
            Ok(descriptor) => Ok(Self(owned(descriptor))),
            Err(_) => {
                let text = String::from_utf8_lossy(&log);
                let mut said = text.trim_end_matches('\0').trim_end().lines().filter(|line| !line.starts_with("processed"));
                Err((refused, said.next_back().unwrap_or_default().to_owned()))
            }
        }
    }

    /// Its number in this process.
    pub(in crate::af_xdp) fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// The name of the program with this number of the kernel's.
pub(in crate::af_xdp) fn program_name(id: u32) -> Result<String, Errno> {
    let program = owned(call(PROGRAM_BY_ID, &mut ById { id, next: 0, flags: 0 })?);
    let mut information = Information::default();
    let len = u32::try_from(size_of::<Information>()).unwrap_or_default();
    let at = std::ptr::from_mut(&mut information) as u64;
    call(INFORMATION, &mut AskInformation { object: program.as_raw_fd().cast_unsigned(), len, information: at })?;
    let name = information.name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}
