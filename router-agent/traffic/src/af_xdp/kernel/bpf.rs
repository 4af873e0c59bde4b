//! Maps and programs of the kernel's virtual machine (`bpf(2)`, `union bpf_attr`).

use std::ffi::CStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;

use super::last_error;
use crate::af_xdp::instruction::Instruction;

// Commands (`enum bpf_cmd`).
const MAP_CREATE: libc::c_int = 0;
const MAP_LOOK_UP: libc::c_int = 1;
const MAP_UPDATE: libc::c_int = 2;
const MAP_DELETE: libc::c_int = 3;
const PROGRAM_LOAD: libc::c_int = 5;
const PROGRAM_BY_ID: libc::c_int = 13;
pub(super) const INFORMATION: libc::c_int = 15;
/// What the kernel's function for routes asks of programs that call it; the program is this project's, under its licence.
const LICENCE: &CStr = c"Dual MIT/GPL";
/// Room for what the kernel says of a program that it refuses.
const LOG_LEN: usize = 64 * 1024;
/// Octets of a program's name.
const NAME_LEN: usize = 16;
/// More processors than any kernel is built for (`NR_CPUS`): of each the kernel gives a value of [`MapKind::PerProcessor`].
const MOST_PROCESSORS: usize = 8192;
/// A map takes memory for what is in it alone (`BPF_F_NO_PREALLOC`).
const AS_IT_COMES: u32 = 1;
/// Its values begin where a page of memory does (`BPF_F_MMAPABLE`), and so each in a line of the processor's cache that it fills.
const IN_PAGES: u32 = 1 << 10;
/// How often an entry is tried for which the kernel has no memory in this moment.
const ATTEMPTS: usize = 100;

/// What a map is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(in crate::af_xdp) enum MapKind {
    /// Values by keys of any kind (`BPF_MAP_TYPE_HASH`).
    Hash = 1,
    /// Values by number, each in lines of the processor's cache of its own (`BPF_MAP_TYPE_ARRAY`).
    Lines = 2,
    /// Values by number, each of them once for each processor (`BPF_MAP_TYPE_PERCPU_ARRAY`).
    PerProcessor = 6,
    /// AF_XDP sockets by number (`BPF_MAP_TYPE_XSKMAP`).
    Sockets = 17,
}

/// A map.
#[derive(Debug)]
pub(in crate::af_xdp) struct Map {
    descriptor: OwnedFd,
    kind: MapKind,
    key_len: usize,
    value_len: usize,
}

/// Where a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(in crate::af_xdp) enum ProgramKind {
    /// At every packet that comes in by an interface (`BPF_PROG_TYPE_SCHED_CLS`).
    Ingress = 3,
    /// At every frame, before the kernel makes a packet of it (`BPF_PROG_TYPE_XDP`).
    Xdp = 6,
}

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

/// The same of `BPF_MAP_LOOKUP_ELEM`, `BPF_MAP_UPDATE_ELEM` and `BPF_MAP_DELETE_ELEM`.
#[repr(C)]
struct Entry {
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
pub(super) struct AskInformation {
    pub(super) object: u32,
    pub(super) len: u32,
    pub(super) information: u64,
}

/// `struct bpf_prog_info` up to the name.
#[repr(C)]
#[derive(Default)]
struct Information {
    before: [u64; 8],
    name: [u8; NAME_LEN],
}

/// Calls the kernel with a command's part of `union bpf_attr`; the kernel takes what is not given as zero.
pub(super) fn call<T>(command: libc::c_int, attributes: &mut T) -> Result<RawFd, Errno> {
    // SAFETY: `attributes` is a plain structure of so many octets, and the kernel is done with it when the call returns. The pointers in it
    // are to values that its makers below keep alive until then.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if answer < 0 { Err(last_error()) } else { RawFd::try_from(answer).map_err(|_| Errno::EOVERFLOW) }
}

/// The descriptor that a call has made.
pub(super) fn owned(descriptor: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just given this descriptor to us and to nobody else.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

impl Map {
    /// Makes a map with keys and values of so many octets.
    pub(in crate::af_xdp) fn new(kind: MapKind, (key_len, value_len): (u32, u32), entries: u32) -> Result<Self, Errno> {
        let flags = match kind {
            MapKind::Hash => AS_IT_COMES,
            MapKind::Lines => IN_PAGES,
            MapKind::PerProcessor | MapKind::Sockets => 0,
        };
        let descriptor = owned(call(MAP_CREATE, &mut CreateMap { kind: kind as u32, key_len, value_len, entries, flags })?);
        Ok(Self { descriptor, kind, key_len: key_len as usize, value_len: value_len as usize })
    }

    /// Sets an entry.
    ///
    /// # Errors
    ///
    /// `E2BIG` if there is no room, `EINVAL` if the lengths are not the map's.
    pub(in crate::af_xdp) fn set(&self, key: &[u8], value: &[u8]) -> Result<(), Errno> {
        let mut tried = 0;
        loop {
            tried += 1;
            match self.call(MAP_UPDATE, key, Some(value)) {
                // Memory for entries is put by, and more of it fetched once that is used up.
                Err(Errno::ENOMEM) if tried < ATTEMPTS => std::thread::yield_now(),
                other => return other,
            }
        }
    }

    /// Takes an entry out, if it is there.
    pub(in crate::af_xdp) fn remove(&self, key: &[u8]) -> Result<(), Errno> {
        match self.call(MAP_DELETE, key, None) {
            Err(Errno::ENOENT) => Ok(()),
            other => other,
        }
    }

    /// Reads an entry.
    ///
    /// # Errors
    ///
    /// `ENOENT` if it is not there, `EINVAL` if the lengths are not the map's.
    pub(in crate::af_xdp) fn read(&self, key: &[u8], into: &mut [u8]) -> Result<(), Errno> {
        if key.len() != self.key_len || into.len() != self.value_len || self.kind == MapKind::PerProcessor {
            return Err(Errno::EINVAL);
        }
        let value = into.as_mut_ptr() as u64;
        call(MAP_LOOK_UP, &mut Entry { map: self.descriptor().cast_unsigned(), padding: 0, key: key.as_ptr() as u64, value, flags: 0 })
            .map(drop)
    }

    /// The values of all processors, one behind the other, of a map with one for each; `0` in octets for those that the kernel does not have.
    pub(in crate::af_xdp) fn of_processors(&self, key: &[u8]) -> Result<Vec<u8>, Errno> {
        if key.len() != self.key_len {
            return Err(Errno::EINVAL);
        }
        let mut values = vec![0_u8; self.value_len.next_multiple_of(8) * MOST_PROCESSORS];
        let value = values.as_mut_ptr() as u64;
        call(MAP_LOOK_UP, &mut Entry { map: self.descriptor().cast_unsigned(), padding: 0, key: key.as_ptr() as u64, value, flags: 0 })?;
        Ok(values)
    }

    fn call(&self, command: libc::c_int, key: &[u8], value: Option<&[u8]>) -> Result<(), Errno> {
        // Of a value for each processor the kernel would read more than one.
        let fits = value.is_none_or(|value| value.len() == self.value_len && self.kind != MapKind::PerProcessor);
        if key.len() != self.key_len || !fits {
            return Err(Errno::EINVAL);
        }
        let value = value.map_or(0, |value| value.as_ptr() as u64);
        call(command, &mut Entry { map: self.descriptor().cast_unsigned(), padding: 0, key: key.as_ptr() as u64, value, flags: 0 })
            .map(drop)
    }

    /// Its number in this process, as programs name it.
    pub(in crate::af_xdp) fn descriptor(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

impl Program {
    /// Has the kernel take a program under `name`. The error comes with the last line of what the kernel says of it.
    pub(in crate::af_xdp) fn load(kind: ProgramKind, code: &[Instruction], name: &str) -> Result<Self, (Errno, String)> {
        let mut log = vec![0_u8; LOG_LEN];
        let mut padded = [0; NAME_LEN];
        padded.iter_mut().zip(name.bytes().take(NAME_LEN - 1)).for_each(|(place, byte)| *place = byte);
        let mut attributes = LoadProgram {
            kind: kind as u32,
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

/// What the clock shows that programs read (`bpf_ktime_get_ns`, `CLOCK_MONOTONIC`).
pub(in crate::af_xdp) fn clock() -> Result<Duration, Errno> {
    let mut read = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `read` is a plain structure that lives across the call.
    Errno::result(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut read) })?;
    Ok(Duration::new(u64::try_from(read.tv_sec).unwrap_or_default(), u32::try_from(read.tv_nsec).unwrap_or_default()))
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
