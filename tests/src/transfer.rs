//! Files carried by unmodified programs: plain sockets that know nothing of permissions.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Payload octets of one datagram of a file; with its 8 octets of position it fits an MTU of 1500 under the largest AH.
pub const CHUNK: usize = 1200;

/// The datagram of `file` that [`send_file`] sends first.
pub fn first_datagram(file: &[u8]) -> Vec<u8> {
    let mut datagram = 0_u64.to_be_bytes().to_vec();
    datagram.extend(file.iter().take(CHUNK));
    datagram
}

/// Sends `file` in datagrams that each name their position, paced, and returns how many were sent.
pub fn send_file(socket: &UdpSocket, to: SocketAddr, file: &[u8], pause: Duration) -> io::Result<u64> {
    let mut sent = 0;
    for (index, chunk) in file.chunks(CHUNK).enumerate() {
        let mut datagram = (index as u64).to_be_bytes().to_vec();
        datagram.extend_from_slice(chunk);
        socket.send_to(&datagram, to)?;
        sent += 1;
        std::thread::sleep(pause);
    }
    Ok(sent)
}

/// What a receiver of a file has got.
#[derive(Debug, Default)]
pub struct Received {
    /// The file, as far as it arrived.
    pub file: Vec<u8>,
    /// Datagrams that arrived, repeated ones included.
    pub datagrams: u64,
    /// When the first datagram arrived.
    pub first: Option<Instant>,
}

/// Receives datagrams until `octets` of a file have arrived or `patience` passes without one.
pub fn receive_file(socket: &UdpSocket, octets: usize, patience: Duration) -> io::Result<Received> {
    socket.set_read_timeout(Some(patience))?;
    let mut received = Received { file: vec![0; octets], ..Received::default() };
    let mut missing: std::collections::BTreeSet<u64> = (0..octets.div_ceil(CHUNK) as u64).collect();
    let mut buffer = [0; 65536];
    while !missing.is_empty() {
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break,
            Err(error) => return Err(error),
        };
        received.first.get_or_insert_with(Instant::now);
        received.datagrams += 1;
        let Some((position, chunk)) = buffer.get(..length).and_then(|datagram| datagram.split_first_chunk::<8>()) else { continue };
        let index = u64::from_be_bytes(*position);
        let place = usize::try_from(index).ok().and_then(|index| index.checked_mul(CHUNK));
        let place = place.and_then(|start| received.file.get_mut(start..start.saturating_add(chunk.len())));
        if let Some(place) = place {
            place.copy_from_slice(chunk);
            missing.remove(&index);
        }
    }
    Ok(received)
}

/// Counts datagrams until `patience` passes without one.
pub fn count_datagrams(socket: &UdpSocket, patience: Duration) -> io::Result<u64> {
    socket.set_read_timeout(Some(patience))?;
    let mut buffer = [0; 65536];
    let mut count = 0;
    while socket.recv(&mut buffer).is_ok() {
        count += 1;
    }
    Ok(count)
}

/// A file of `octets` octets that no compression and no zero-filled buffer can fake.
pub fn make_file(octets: usize) -> io::Result<Vec<u8>> {
    let mut file = vec![0; octets];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut file).map_err(|_| io::Error::other("no randomness"))?;
    Ok(file)
}
