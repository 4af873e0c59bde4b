//! Calls to the kernel and memory shared with it, that Rust cannot check: `bpf(2)`, AF_XDP sockets, their rings, the memory that frames
//! lie in, and the making of a TUN device.
//!
//! The only unsafe code of [`af_xdp`](super), and of its folder nothing but what needs it. What makes it sound:
//!
//! * A structure that is given to the kernel is a plain value that lives across the call, with its true length; pointers in it are to slices
//!   that live as long.
//! * A frame's memory belongs to whoever holds its [`Frame`], of which there is never more than one: it is used up when the kernel is given
//!   the memory, and made anew when the kernel gives it back. What the kernel gives back is looked up, so that even a kernel that errs makes no
//!   second one.
//! * Of each ring this process is the one end and the kernel the other; either changes its own counter alone, behind its entries
//!   (`Release`), and reads the other's before them (`Acquire`).
#![allow(unsafe_code)]

mod attached;
mod bpf;
mod device;
mod link_socket;
mod memory;
mod ring;
mod socket;

pub(super) use attached::Attached;
pub(super) use bpf::{Map, MapKind, Program, ProgramKind, clock, program_name};
pub(super) use device::make_device;
pub(crate) use link_socket::{bind_to_link, link_socket};
pub(super) use memory::{Frame, Frames};
pub(super) use socket::{Binding, Received, Socket, Statistics, queues};

/// The error that the last call of this thread has left.
fn last_error() -> nix::errno::Errno {
    nix::errno::Errno::last()
}
