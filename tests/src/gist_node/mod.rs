//! One GIST node with a console: to try another implementation against it, by hand or by script.
//!
//! Every event is a JSON line on the standard output, in the words of [`gist::io::ipc`].
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod console;
mod interception;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use gist::io::ipc::{Asked, Event, Ipc, Request, serve, shown};
use gist::io::tls::{self, Tls};
use gist::io::{Bind, Handle, Limits, ShellConfig, spawn};
use gist::node::{AddressPrefix, ApdEntry, IdentityPattern, Installation, NodeConfig, PeerRole, Registration, Role};
use gist::wire::{NslpId, PeerIdentity, Profile};
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::UnixTime;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::signal::unix::{SignalKind, signal};

use console::{HELP, Line};

/// What the node is.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The node's own addresses; sockets are bound to any address.
    #[arg(long = "address", required = true, value_name = "ADDRESS")]
    addresses: Vec<IpAddr>,
    /// The applications of the node.
    #[arg(long = "nslp-id", required = true, value_name = "NSLPID")]
    applications: Vec<u16>,
    /// Router alert value of its Queries; without, none in IPv4 and 65503 in IPv6.
    #[arg(long, value_name = "VALUE")]
    rao: Option<u16>,
    /// The peer identity in its Network-Layer-Information; otherwise its first address.
    #[arg(long, value_name = "TEXT")]
    identity: Option<String>,
    /// TCP port of its messaging associations.
    #[arg(long, default_value_t = 30270, value_name = "PORT")]
    port: u16,
    /// Its certificate chain (PEM): with it messages go over TLS.
    #[arg(long, value_name = "FILE", requires_all = ["key", "authority"])]
    certificate: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Whom it believes (PEM).
    #[arg(long, value_name = "FILE")]
    authority: Option<PathBuf>,
    /// TCP port of its associations over TCP alone, to peers that nobody has authenticated; with a certificate TLS goes before it.
    #[arg(long, value_name = "PORT")]
    plain_port: Option<u16>,
    /// Networks towards which IPv4 Queries go without router alert.
    #[arg(long, value_name = "PREFIX")]
    without_router_alert: Vec<AddressPrefix>,
    /// Longest IP packet that each of its links takes; a message in a datagram is no longer than this and 576 octets allow.
    #[arg(long, default_value_t = 1500, value_name = "OCTETS")]
    first_hop_mtu: u16,
    /// Messages that a GIST-aware NAT has changed are taken (RFC 5971 §7.2.2).
    #[arg(long)]
    behind_nats: bool,
    /// When a node that is asked keeps routing state, where messages go as datagrams: with the Confirm, with the Query, or with the Query and
    /// without asking for a Confirm (RFC 5971 §6.3).
    #[arg(long, default_value = "on-confirm", value_name = "POLICY")]
    install: Install,
    /// A Responder-Cookie that is wrong is answered by an Error, to find out why; makes the node reflect.
    #[arg(long)]
    answer_bad_cookies: bool,
    /// It forwards packets of others, and takes Queries for its applications off their way. Needs root.
    #[arg(long)]
    intercept: bool,
    /// Number of the queue for that.
    #[arg(long, default_value_t = 270, value_name = "NUMBER")]
    queue: u16,
    /// Its applications are programs on a Unix socket here (module `gist::io::ipc`), not the console.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

/// [`Installation`] as a word.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Install {
    OnConfirm,
    OnQuery,
    WithoutConfirm,
}

impl From<Install> for Installation {
    fn from(policy: Install) -> Self {
        match policy {
            Install::OnConfirm => Self::OnConfirm,
            Install::OnQuery => Self::OnQuery,
            Install::WithoutConfirm => Self::WithoutConfirm,
        }
    }
}

/// Runs the node until `quit` or a signal.
///
/// # Errors
///
/// A file cannot be used, or the system refuses a socket.
pub fn run(options: &Options) -> io::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(serve_console(options));
    // Not to be waited for: somebody may be reading the console, which may never say anything again.
    runtime.shutdown_background();
    ended
}

async fn serve_console(options: &Options) -> io::Result<bool> {
    let applications: Vec<NslpId> = options.applications.iter().copied().map(NslpId).collect();
    let (mut interrupted, mut terminated) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (gist, mut indications) = spawn(options.config()?).map_err(io::Error::other)?;
    let _interception = options.intercept.then(|| interception::start(options.queue, gist.clone())).transpose()?;
    let mut ipc = None;
    if let Some(path) = &options.socket {
        let taken = std::mem::replace(&mut indications, tokio::sync::mpsc::channel(1).1);
        ipc = Some(serve(path, &applications, gist.clone(), taken).map_err(io::Error::other)?);
    }
    eprintln!("GIST node {}; `help` lists the commands", options.identity());
    let mut speaking = applications.first().copied();
    let mut lines = Some(BufReader::new(tokio::io::stdin()).lines());
    let mut typed = 0;
    loop {
        tokio::select! {
            indication = indications.recv(), if ipc.is_none() => match indication {
                Some(indication) => {
                    let (nslp_id, event) = Event::of(&indication);
                    say(&event, Some(nslp_id));
                }
                None => return Err(io::Error::other("the node has ended")),
            },
            () = ended(&mut ipc) => return Err(io::Error::other("the node has ended")),
            line = next(&mut lines) => match line? {
                // The end of the input ends nothing: a script may only want to listen.
                None => lines = None,
                Some(line) => {
                    typed += 1;
                    match console::read(&line, new_session()?) {
                    Ok(Line::Nothing) => {}
                    Ok(Line::Help) => eprintln!("{HELP}"),
                    Ok(Line::Quit) => break,
                    Ok(Line::Use(nslp_id)) if applications.contains(&nslp_id) => speaking = Some(nslp_id),
                    Ok(Line::Use(nslp_id)) => eprintln!("this node has no application {nslp_id}"),
                    Ok(Line::Request(asked)) => carry_out(asked, typed, speaking.filter(|_| ipc.is_none()), &gist).await,
                    Err(why) => say(&Event::Refused { id: None, line: typed, why }, None),
                    }
                },
            },
            _ = interrupted.recv() => break,
            _ = terminated.recv() => break,
        }
    }
    gist.stop().await;
    Ok(true)
}

async fn carry_out(Asked { id, request }: Asked, line: u64, speaking: Option<NslpId>, gist: &Handle) {
    let refused = |why: String| Some(Event::Refused { id, line, why });
    let answer = match (request, speaking) {
        (Request::Show { what, from }, _) => match shown(id, what, from, gist).await {
            Ok(event) => Some(event),
            Err(stopped) => refused(stopped.to_string()),
        },
        (_, None) => refused("the applications are programs on the socket; the console only shows".to_owned()),
        (request, Some(nslp_id)) => match request.of_application(nslp_id) {
            Some(request) => gist.request(request).await.err().and_then(|error| refused(error.to_string())),
            None => refused("the console is registered already".to_owned()),
        },
    };
    if let Some(answer) = answer {
        say(&answer, speaking);
    }
}

/// The end of the node whose applications are on a socket; never, where they are not.
async fn ended(ipc: &mut Option<Ipc>) {
    match ipc {
        Some(ipc) => ipc.ended().await,
        None => std::future::pending().await,
    }
}

/// The next line; never, once the input has ended.
async fn next(lines: &mut Option<tokio::io::Lines<BufReader<tokio::io::Stdin>>>) -> io::Result<Option<String>> {
    match lines {
        Some(lines) => lines.next_line().await,
        None => std::future::pending().await,
    }
}

/// With the application, which on a socket is the program's own.
fn say(event: &Event, nslp_id: Option<NslpId>) {
    let mut line = serde_json::to_value(event).unwrap_or_default();
    if let (Some(fields), Some(nslp_id)) = (line.as_object_mut(), nslp_id) {
        fields.insert("nslp_id".to_owned(), nslp_id.0.into());
    }
    println!("{line}");
}

fn new_session() -> io::Result<[u8; 16]> {
    let mut session = [0; 16];
    SystemRandom::new().fill(&mut session).map_err(|_| io::Error::other("the system gives no random numbers"))?;
    Ok(session)
}

impl Options {
    fn identity(&self) -> String {
        let address = || self.addresses.first().map(ToString::to_string).unwrap_or_default();
        self.identity.clone().unwrap_or_else(address)
    }

    fn config(&self) -> io::Result<ShellConfig> {
        let identity = PeerIdentity::new(self.identity().into_bytes());
        let identity = identity.ok_or_else(|| io::Error::other("--identity: 1 to 255 octets"))?;
        let mut node = NodeConfig::new(identity, if self.intercept { Role::Router } else { Role::Host });
        let tls = self.tls()?;
        let registration = |nslp_id: &u16| {
            let stacks = [(tls.is_some(), Profile::tls_over_tcp()), (self.plain_port.is_some(), Profile::tcp())];
            let offer = stacks.into_iter().filter_map(|(offered, profile)| offered.then_some(profile)).collect();
            Registration {
                offer,
                unvalidated_data: true,
                installation: self.install.into(),
                ..Registration::secure(NslpId(*nslp_id), self.rao)
            }
        };
        node.registrations = self.applications.iter().map(registration).collect();
        node.association_port = self.port;
        node.plain_association_port = self.plain_port.unwrap_or(0);
        node.without_router_alert.clone_from(&self.without_router_alert);
        node.first_hop_mtu = self.first_hop_mtu;
        node.behind_nats = self.behind_nats;
        node.answer_bad_cookies = self.answer_bad_cookies;
        node.local_addresses = self.addresses.clone();
        // Whom the authority has certified; this is a node for trying things.
        node.authorised_peers = vec![ApdEntry { pattern: IdentityPattern::Any, role: PeerRole::Router, allow: true }];
        let bind = Bind {
            ipv4: self.addresses.iter().any(IpAddr::is_ipv4).then_some(Ipv4Addr::UNSPECIFIED),
            ipv6: self.addresses.iter().any(IpAddr::is_ipv6).then_some(Ipv6Addr::UNSPECIFIED),
            ..Bind::default()
        };
        Ok(ShellConfig { node, tls, bind, limits: Limits::default() })
    }

    fn tls(&self) -> io::Result<Option<Tls>> {
        let (Some(certificate), Some(key), Some(authority)) = (&self.certificate, &self.key, &self.authority) else { return Ok(None) };
        let at = UnixTime::now();
        let read = |path: &Path| tls::read_certificates(path, at).map_err(io::Error::other);
        let anchors = tls::read_anchors(authority, at).map_err(io::Error::other)?;
        tls::configs(read(certificate)?, tls::read_key(key).map_err(io::Error::other)?, anchors).map(Some).map_err(io::Error::other)
    }
}
