//! How many queues an interface has, as ethtool(8) sets it (`linux/ethtool_netlink.h`).
#![allow(unreachable_pub, reason = "shared by test programs")]

use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use traffic::netlink::{ACK, Header, REQUEST, Writer, attributes, messages};

/// Octets of the fixed part of a generic message: command, version, and two of nothing.
const FIXED_LEN: usize = 4;

/// Sets how many queues a link of the calling thread's namespace receives by, and as many to send by.
pub fn set(link: &str, count: u32) {
    const SET_CHANNELS: u8 = 18;
    const LINK: u16 = 1;
    const LINK_NAME: u16 = 2;
    const RECEIVING: u16 = 6;
    const SENDING: u16 = 7;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkGeneric).unwrap();
    let ethtool = family(&socket, "ethtool");
    exchange(&socket, ethtool, SET_CHANNELS, |writer| {
        writer.nest(LINK, |of| of.put_text(LINK_NAME, link));
        writer.put_u32(RECEIVING, count);
        writer.put_u32(SENDING, count);
    });
}

/// The kind that messages of a family have.
fn family(socket: &OwnedFd, name: &str) -> u16 {
    const CONTROL: u16 = 16;
    const GET_FAMILY: u8 = 3;
    const FAMILY: u16 = 1;
    const FAMILY_NAME: u16 = 2;
    let answer = exchange(socket, CONTROL, GET_FAMILY, |writer| writer.put_text(FAMILY_NAME, name));
    let message = messages(&answer).next().unwrap().unwrap();
    let family = attributes(message.after(FIXED_LEN).unwrap()).find(FAMILY).unwrap().unwrap();
    u16::from_ne_bytes(family.value.try_into().unwrap())
}

/// Asks, and gives what comes before the kernel says that it has done so.
fn exchange(socket: &OwnedFd, kind: u16, command: u8, fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    const DONE: u16 = 2;
    let mut writer = Writer::reusing(Vec::new());
    writer.message(Header { kind, flags: REQUEST | ACK, sequence: 1 }, &[command, 1, 0, 0], fill);
    send(socket.as_raw_fd(), &writer.finish().unwrap(), MsgFlags::empty()).unwrap();
    let mut before = Vec::new();
    loop {
        let mut buffer = vec![0; 65_536];
        let len = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
        for message in messages(&buffer[..len]).map(Result::unwrap) {
            if message.kind == DONE {
                assert_eq!(message.fixed::<4>(), Ok(&[0; 4]), "refused");
                return before;
            }
        }
        before.extend_from_slice(&buffer[..len]);
    }
}
