//! Streams over TCP alone, or over TLS with the configuration that the product has, for those who make and take the load.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use gist::io::tls::{self, Tls};
use rustls::{ClientConnection, ServerConnection, StreamOwned};
use rustls_pki_types::{ServerName, UnixTime};

use super::data::connected;
use crate::pki::{Authority, KeyKind};
use crate::remains::Remainder;

/// A stream whose reads and writes wait.
#[derive(Debug)]
pub(super) enum Secured {
    Plain(TcpStream),
    Client(Box<StreamOwned<ClientConnection, TcpStream>>),
    Server(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Secured {
    pub(super) fn connect(to: SocketAddr, from: Ipv4Addr, tls: Option<&Tls>) -> io::Result<Self> {
        let stream = connected(to, from)?;
        let Some(tls) = tls else { return Ok(Self::Plain(stream)) };
        let connection = ClientConnection::new(Arc::clone(&tls.client), ServerName::IpAddress(to.ip().into())).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self::Client(Box::new(stream)))
    }

    pub(super) fn accept(listener: &TcpListener, tls: Option<&Tls>) -> io::Result<Self> {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let Some(tls) = tls else { return Ok(Self::Plain(stream)) };
        let connection = ServerConnection::new(Arc::clone(&tls.server)).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self::Server(Box::new(stream)))
    }

    /// Says that nothing more comes.
    pub(super) fn close(&mut self) {
        let socket = match self {
            Self::Plain(stream) => stream,
            Self::Client(stream) => &mut stream.sock,
            Self::Server(stream) => &mut stream.sock,
        };
        // It may be closed already.
        let _ = socket.shutdown(Shutdown::Write);
    }
}

impl Read for Secured {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Client(stream) => stream.read(buffer),
            Self::Server(stream) => stream.read(buffer),
        }
    }
}

impl Write for Secured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Client(stream) => stream.write(bytes),
            Self::Server(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Client(stream) => stream.flush(),
            Self::Server(stream) => stream.flush(),
        }
    }
}

/// Identities of one authority, each for one address.
pub(super) fn certified<const COUNT: usize>(addresses: [IpAddr; COUNT]) -> io::Result<[Tls; COUNT]> {
    let (_remainder, directory) = Remainder::temporary("pbs-lab")?;
    let authority = Authority::create("load")?;
    let anchor = directory.join("ca.crt");
    std::fs::write(&anchor, authority.certificate())?;
    let at = UnixTime::now();
    let made: Vec<Tls> = addresses
        .iter()
        .enumerate()
        .map(|(number, address)| {
            let name = format!("node{number}");
            authority.issue(&directory, &name, &[*address], KeyKind::Ed25519)?;
            let chain = tls::read_certificates(&directory.join(format!("{name}.crt")), at).map_err(io::Error::other)?;
            let key = tls::read_key(&directory.join(format!("{name}.key"))).map_err(io::Error::other)?;
            let anchors = tls::read_anchors(&anchor, at).map_err(io::Error::other)?;
            tls::configs(chain, key, anchors).map_err(io::Error::other)
        })
        .collect::<io::Result<_>>()?;
    made.try_into().map_err(|_| io::Error::other("as many identities as addresses"))
}
