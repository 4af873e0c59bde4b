//! Files over TCP: a permission for the data and one, asked for by the receiver itself, for the answers.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::line::Line;
use super::site::Site;
use super::trial::Trial;
use crate::network::topology::Family::{self, Ipv4, Ipv6};
use crate::network::topology::MTU;
use crate::transfer;

/// Octets of the file.
const FILE: usize = 10 << 20;

/// One file over IPv4, one over IPv6.
pub(super) fn files(site: &mut Site) -> io::Result<Vec<Line>> {
    // Full size: the link's MTU less what the largest AH would need, plus the AH that is there.
    let ipv4 = transfer_file(site, "granted-tcp", "10 MiB file over TCP", Ipv4, 9100, MTU - 76 + 28)?;
    let ipv6 = transfer_file(site, "granted-tcp-ipv6", "10 MiB file over TCP and IPv6", Ipv6, 9101, MTU - 80 + 32)?;
    Ok(vec![ipv4, ipv6])
}

fn transfer_file(site: &Site, name: &'static str, tried: &str, family: Family, port: u16, full_size: u32) -> io::Result<Line> {
    let mut trial = Trial::start(site, name, tried, family, port)?;
    let file = transfer::make_file(FILE)?;
    let listener = site.chain.receiver.run(|| TcpListener::bind((family.receiver(), port)))?;
    let receiving = std::thread::spawn(move || receive(&listener));
    let (started, started_us) = (Instant::now(), site.now_us());
    let to = trial.destination();
    let connected = site.chain.sender.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(10)));
    match connected {
        Ok(stream) => {
            trial.measure_grant(started_us);
            trial.line.measure(format!("connected after {:.1} ms", started.elapsed().as_secs_f64() * 1e3));
            let sending = Instant::now();
            let sent = send(stream, &file);
            trial.line.must(sent.is_ok(), format!("sending: {sent:?}"));
            let received = receiving.join().map_err(|_| io::Error::other("the receiving thread panicked"))?;
            let mbit = FILE as f64 * 8.0 / 1e6 / sending.elapsed().as_secs_f64();
            trial.line.measure(format!("{mbit:.0} Mbit/s"));
            trial.line.must(received.is_ok_and(|received| received == file), "the file did not arrive intact");
        }
        Err(error) => trial.line.must(false, format!("connect: {error}")),
    }
    let mut line = trial.finish()?;
    line.sent = line.sender_link.there.packets;
    line.must_be_under_ah();
    let there = &line.receiver_link.there;
    let (longest, full) = (there.longest, there.full_size);
    line.measure(format!("{full} packets of {longest} octets"));
    line.must(longest == u64::from(full_size), format!("segments fill {longest} octets of {full_size}"));
    line.must(full * 10 > line.receiver_link.there.packets * 9, "fewer than nine in ten segments are of full size");
    Ok(line)
}

fn send(mut stream: TcpStream, file: &[u8]) -> io::Result<()> {
    use std::io::{Read, Write};
    stream.set_write_timeout(Some(Duration::from_secs(20)))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(file)?;
    stream.shutdown(Shutdown::Write)?;
    // The receiver closes when it has everything.
    stream.read_to_end(&mut Vec::new()).map(drop)
}

fn receive(listener: &TcpListener) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let deadline = Instant::now() + Duration::from_secs(12);
    listener.set_nonblocking(true)?;
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(error),
        }
    };
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut file = Vec::new();
    stream.read_to_end(&mut file)?;
    Ok(file)
}
