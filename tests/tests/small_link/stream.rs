//! TCP through the narrow link.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use pbs_lab::network::topology::Family;
use pbs_lab::transfer::make_file;

use crate::site::{NARROW, PATIENCE, Site};

/// Octets of a file.
const FILE: usize = 2_000_000;
const PORT: u16 = 9100;

#[test]
fn a_connection_over_ipv4_learns_the_paths_mtu_and_brings_its_file_through() {
    upload(Family::Ipv4, NARROW - 76 + 28);
}

#[test]
fn a_connection_over_ipv6_learns_the_paths_mtu_and_brings_its_file_through() {
    upload(Family::Ipv6, NARROW - 80 + 32);
}

/// `full` is the length of a full packet on the narrow link: there is room left for the largest AH.
fn upload(family: Family, full: usize) {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::start();
    let file = make_file(FILE).unwrap();
    let listener = site.receiver.run(|| TcpListener::bind((family.receiver(), PORT))).unwrap();
    let server = std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut file = Vec::new();
        stream.read_to_end(&mut file).map(|_| file)
    });
    let to = SocketAddr::new(family.receiver(), PORT);
    let mut stream = site.sender.run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&file).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    assert!(server.join().unwrap().unwrap() == file, "the file did not arrive intact");

    let errors = site.errors(family);
    let lengths = Site::lengths(&site.narrow, PORT);
    let (longest, whole) = (lengths.iter().max().unwrap(), lengths.iter().filter(|length| **length == full).count());
    println!("  {family:?}: {errors} errors; {whole} of {} packets of {full} octets", lengths.len());
    assert!(errors > 0, "nothing was too big");
    for (node, reason) in
        [("router1", "no_permission"), ("router1", "implausible_error"), ("sender", "unknown_spi"), ("sender", "implausible_error")]
    {
        assert_eq!(site.dropped(node, reason), 0, "{node} {reason}");
    }
    let (passed, octets) = site.passed_errors("router1");
    assert!(passed > 0 && octets <= passed * 256, "{passed} errors were passed with {octets} octets");
    assert_eq!(*longest, full);
    assert!(whole * 10 > lengths.len() * 9, "{whole} of {} packets are of full size", lengths.len());
}
