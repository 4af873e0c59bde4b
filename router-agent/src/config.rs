//! The configuration file of `pbs-router`. The commented sample is `router-agent/pbs-router.toml`.

use std::path::{Path, PathBuf};

use daemon::claim;
use daemon::config::{self, Gist, Identity};
use daemon::exempt::{self, Exempt};
use daemon::identity::{self, IdentityError};
use daemon::logging::Form;
use daemon::reassembly::Reassembly;
use daemon::signatures::Signatures;
use daemon::source::{ConfigError, Source};
use serde::Deserialize;
use traffic::queue::{MAX_PACKET_LEN, ROUTER_REST};
use traffic::rules::{FURTHER_QUEUES, Fragments, Role};
use traffic::spread::{MOST_WORKERS, Spread};

use crate::limits::{self, Limit};
use crate::modes::{self, Interface, Mode};
use crate::short_way;

/// Everything `pbs-router` can be told.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Whose file it is.
    role: Option<config::Role>,
    /// Name of this node in logs and status.
    pub name: String,
    /// Where the control socket lies.
    #[serde(default = "default_control_socket")]
    pub control_socket: PathBuf,
    /// Form of the log lines.
    #[serde(default)]
    pub log: Form,
    /// What becomes of traffic without permission.
    #[serde(default)]
    pub mode: Mode,
    /// Bits a second that interfaces can send.
    #[serde(default = "default_egress_rate")]
    pub egress_rate: u64,
    /// Interfaces with a mode of their own.
    #[serde(default)]
    pub interface: Vec<Interface>,
    /// Certificate, key, trust anchors.
    pub identity: Identity,
    /// The signalling transport.
    #[serde(default)]
    pub gist: Gist,
    /// The packet side.
    #[serde(default)]
    pub datapath: Datapath,
    /// What passes without permission besides signalling and what links need.
    #[serde(default)]
    pub exempt: Vec<Exempt>,
    /// What hosts may permit each other through this router.
    #[serde(default)]
    pub limit: Vec<Limit>,
}

/// By which way packets come to the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// All of them through packet queues.
    #[default]
    Nfqueue,
    /// Those with AH, if whole, straight from the interface; all others through packet queues.
    AfXdp,
    /// All of them through packet queues; those with AH, if whole, that have no permission are dropped at the interface.
    XdpShield,
}

/// Section `[datapath]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Datapath {
    /// By which way packets come to the daemon.
    pub kind: Kind,
    /// The interfaces that take part in the short way, or that the shield stands on.
    pub interfaces: Vec<String>,
    /// Whether the worker polls them itself.
    pub busy_poll: bool,
    /// NFQUEUE number of intercepted signalling.
    pub signalling_queue: u16,
    /// NFQUEUE number of forwarded data.
    pub data_queue: u16,
    /// NFQUEUE number of forwarded data that leaves by observed interfaces.
    pub observed_queue: u16,
    /// Threads that judge forwarded data.
    pub workers: u16,
    /// First NFQUEUE number of the workers behind the first: two each.
    pub further_queues: u16,
    /// Packets that may wait in each data queue.
    pub queue_length: u32,
    /// How long packets may gather in it before they are judged, in microseconds.
    pub gather_microseconds: u32,
    /// Octets of a packet that the kernel hands over; a longer packet is dropped.
    pub copy_range: usize,
    /// Permissions held at most.
    pub permissions: usize,
    /// Whether only what belongs to one of them comes to the queue of data.
    pub shield: bool,
    /// Whether it stands at the ingress of interfaces, too.
    pub ingress_shield: bool,
    /// What becomes of what arrives in fragments.
    pub fragments: Fragments,
    /// How much of the kernel's memory for them each may take up.
    pub reassembly: Reassembly,
    /// Signatures of packets verified a second.
    pub signatures: Signatures,
    /// Whether packets may be authenticated by HMAC-SHA-1-96.
    pub hmac_sha1: bool,
}

/// A longer queue makes a flood wait longer, and holds as many packets of the kernel's memory.
const LONGEST_QUEUE: u32 = 65_536;
/// What one call may bring.
const SHORTEST_QUEUE: u32 = 64;
/// In microseconds. At 20,000 packets a second, the least at which they gather, so long a rest brings more than one call takes in: a longer
/// one would save nothing.
const LONGEST_REST: u32 = 5000;
/// What every IPv6 link carries (RFC 8200 §5).
const LEAST_COPY: usize = 1280;

impl Datapath {
    /// How packets are shared among the workers.
    ///
    /// # Errors
    ///
    /// The system gives no random numbers.
    pub(crate) fn spread(&self) -> Result<Spread, IdentityError> {
        if self.workers == 1 {
            return Ok(Spread::ALONE);
        }
        let [a, b, c, d, ..] = identity::seed()?;
        Ok(Spread::new(self.workers, u32::from_be_bytes([a, b, c, d])))
    }

    fn check(&self, source: &Source) -> Result<(), ConfigError> {
        let Self { signalling_queue, data_queue, observed_queue, further_queues, workers, .. } = *self;
        if signalling_queue == data_queue {
            return Err(source.wrong("datapath.data_queue", "is the signalling queue's number too"));
        }
        if [signalling_queue, data_queue].contains(&observed_queue) {
            return Err(source.wrong("datapath.observed_queue", "is another queue's number too"));
        }
        let named = [
            ("datapath.signalling_queue", signalling_queue),
            ("datapath.data_queue", data_queue),
            ("datapath.observed_queue", observed_queue),
        ];
        if let Some((key, _)) = named.iter().find(|(_, number)| *number == claim::QUEUE) {
            return Err(source.wrong(key, "is the queue by which daemons keep each other out of a network namespace"));
        }
        if !(1..=MOST_WORKERS).contains(&workers) {
            return Err(source.wrong("datapath.workers", format!("must be 1 to {MOST_WORKERS}")));
        }
        let further = u32::from(further_queues)..u32::from(further_queues) + 2 * u32::from(workers - 1);
        if further.end > u32::from(claim::QUEUE) || named.iter().any(|(_, number)| further.contains(&u32::from(*number))) {
            return Err(source.wrong("datapath.further_queues", "two numbers for each worker behind the first are not free from here on"));
        }
        if !(SHORTEST_QUEUE..=LONGEST_QUEUE).contains(&self.queue_length) {
            return Err(source.wrong("datapath.queue_length", format!("must be {SHORTEST_QUEUE} to {LONGEST_QUEUE} packets")));
        }
        if self.gather_microseconds > LONGEST_REST {
            return Err(source.wrong("datapath.gather_microseconds", format!("must be 0 to {LONGEST_REST}")));
        }
        if !(LEAST_COPY..=MAX_PACKET_LEN).contains(&self.copy_range) {
            return Err(source.wrong("datapath.copy_range", format!("must be {LEAST_COPY} to {MAX_PACKET_LEN} octets")));
        }
        if self.permissions == 0 {
            return Err(source.wrong("datapath.permissions", "0 leaves no room for any permission"));
        }
        Ok(())
    }
}

impl Default for Datapath {
    fn default() -> Self {
        Self {
            kind: Kind::default(),
            interfaces: Vec::new(),
            busy_poll: false,
            signalling_queue: 1,
            data_queue: 2,
            observed_queue: 5,
            workers: 1,
            further_queues: FURTHER_QUEUES,
            queue_length: 1024,
            gather_microseconds: u32::try_from(ROUTER_REST.as_micros()).unwrap_or(LONGEST_REST),
            copy_range: MAX_PACKET_LEN,
            permissions: 65_536,
            shield: true,
            ingress_shield: true,
            fragments: Fragments::default(),
            reassembly: Reassembly::default(),
            signatures: Signatures::default(),
            hmac_sha1: false,
        }
    }
}

const fn default_egress_rate() -> u64 {
    modes::DEFAULT_EGRESS_RATE
}

fn default_control_socket() -> PathBuf {
    PathBuf::from("/run/pbs/router.sock")
}

/// Reads and checks the file; relative paths become paths beside it.
pub(crate) fn load(path: &Path) -> Result<Config, ConfigError> {
    parse(&Source::read(path)?)
}

pub(crate) fn parse(source: &Source) -> Result<Config, ConfigError> {
    config::check_role(source, Role::Router, "pbs-router")?;
    let mut config: Config = source.parse()?;
    config::require_role(config.role, source, Role::Router)?;
    config.gist.check(source)?;
    exempt::check(&config.exempt, Role::Router, config.gist.association_port, source)?;
    limits::check(&config.limit, source)?;
    modes::check(config.egress_rate, &config.interface, source)?;
    config.datapath.check(source)?;
    let modes = modes::rules(config.mode, config.egress_rate, &config.interface);
    short_way::check(&config.datapath, &modes, source)?;
    config.datapath.signatures.check(source)?;
    config.datapath.reassembly.check(source)?;
    config.control_socket = source.beside(&config.control_socket);
    config.identity.resolve(source);
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../pbs-router.toml");
    const LEAST: &str =
        "role = \"router\"\nname = \"r\"\n[identity]\ncertificate = \"r.crt\"\nkey = \"keys/r.key\"\ntrust_anchors = \"/ca.crt\"\n";

    fn read(text: &str) -> Result<Config, ConfigError> {
        parse(&Source::new(Path::new("/etc/pbs/r.toml"), text))
    }

    fn complaint(rest: &str) -> String {
        read(&format!("{LEAST}{rest}")).unwrap_err().to_string()
    }

    #[test]
    fn the_sample_file_shows_the_defaults_that_hold_without_it() {
        let (sample, least) = (read(SAMPLE).unwrap(), read(LEAST).unwrap());
        assert_eq!(sample.control_socket, least.control_socket);
        assert_eq!(sample.log, least.log);
        assert_eq!((sample.mode, sample.egress_rate, sample.interface), (least.mode, least.egress_rate, least.interface));
        assert_eq!(sample.datapath, least.datapath);
        assert_eq!(Gist { peer: Vec::new(), ..sample.gist }, least.gist);
    }

    #[test]
    fn paths_are_taken_from_the_directory_of_the_file() {
        let config = read(&format!("control_socket = \"r.sock\"\n{LEAST}")).unwrap();
        assert_eq!(config.control_socket, Path::new("/etc/pbs/r.sock"));
        assert_eq!(config.identity.certificate, Path::new("/etc/pbs/r.crt"));
        assert_eq!(config.identity.key, Path::new("/etc/pbs/keys/r.key"));
        assert_eq!(config.identity.trust_anchors, Path::new("/ca.crt"));
    }

    /// The sample with one of its commented sections taken for real.
    fn sample_with(section: &str) -> Config {
        let mut inside = false;
        let lines = SAMPLE.lines().map(|line| {
            inside = if inside { line.starts_with("# ") } else { line == format!("# [[{section}]]") };
            if inside { line.trim_start_matches("# ") } else { line }
        });
        read(&lines.collect::<Vec<_>>().join("\n")).unwrap()
    }

    /// the sample's examples are entries that hold when the comment signs are taken away.
    #[test]
    fn the_samples_exemptions_hold_once_they_are_no_comments() {
        let config = sample_with("exempt");
        assert_eq!(
            config.exempt.iter().map(|exempt| &*exempt.name).collect::<Vec<_>>(),
            ["ssh", "dns", "ntp", "relay-datagrams", "relay-associations"]
        );
        assert_eq!(read(SAMPLE).unwrap().exempt, []);
    }

    #[test]
    fn the_samples_interface_has_its_mode_once_it_is_no_comment() {
        let config = sample_with("interface");
        assert_eq!(config.interface.iter().map(|entry| (&*entry.name, entry.mode)).collect::<Vec<_>>(), [("eth1", Mode::Open)]);
    }

    #[test]
    fn the_samples_limits_hold_once_they_are_no_comments() {
        let config = sample_with("limit");
        assert_eq!(
            config.limit.iter().map(|limit| (limit.permit, limit.volume)).collect::<Vec<_>>(),
            [(true, Some(1_048_576)), (false, None)]
        );
        assert_eq!(read(SAMPLE).unwrap().limit, []);
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_line_and_key() {
        let cases = [
            ("[datapath]\ndata_queue = 1\n", "/etc/pbs/r.toml:8: datapath.data_queue: is the signalling queue's number too"),
            ("[datapath]\nsignalling_queue = 2\n", "/etc/pbs/r.toml:7: datapath.data_queue: is the signalling queue's number too"),
            (
                "[datapath]\ndata_queue = 65535\n",
                "/etc/pbs/r.toml:8: datapath.data_queue: is the queue by which daemons keep each other out",
            ),
            ("[datapath]\nobserved_queue = 2\n", "/etc/pbs/r.toml:8: datapath.observed_queue: is another queue's number too"),
            ("[datapath]\nsignalling_queue = 5\n", "/etc/pbs/r.toml:7: datapath.observed_queue: is another queue's number too"),
            ("[datapath]\nsignalling_queue = 65535\n", "/etc/pbs/r.toml:8: datapath.signalling_queue: is the queue by which daemons"),
            ("[datapath]\nkind = \"af_xdp\"\n", "/etc/pbs/r.toml:8: datapath.kind: is \"af_xdp\", and `interfaces` names none"),
            (
                "[datapath]\nkind = \"af_xdp\"\ninterfaces = [\"a\"]\nworkers = 2\n",
                "/etc/pbs/r.toml:10: datapath.workers: is more than 1, and `kind = \"af_xdp\"` has one worker",
            ),
            ("[datapath]\nkind = \"xdp_shield\"\n", "/etc/pbs/r.toml:8: datapath.kind: is \"xdp_shield\", and `interfaces` names none"),
            (
                "[datapath]\nkind = \"xdp_shield\"\ninterfaces = [\"a\"]\nshield = false\n",
                "/etc/pbs/r.toml:8: datapath.kind: is \"xdp_shield\", and `shield` is false",
            ),
            (
                "[datapath]\nkind = \"xdp_shield\"\ninterfaces = [\"a\"]\n[[interface]]\nname = \"a\"\nmode = \"open\"\n",
                "/etc/pbs/r.toml:8: datapath.kind: is \"xdp_shield\", and not every interface is closed",
            ),
            (
                "[datapath]\nkind = \"dpdk\"\n",
                "/etc/pbs/r.toml:8: unknown variant `dpdk`, expected one of `nfqueue`, `af_xdp`, `xdp_shield`",
            ),
            ("[datapath]\nbusy_poll = true\n", "/etc/pbs/r.toml:8: datapath.busy_poll: is true, and `kind` is not \"af_xdp\""),
            (
                "[datapath]\nkind = \"xdp_shield\"\ninterfaces = [\"a\"]\nbusy_poll = true\n",
                "/etc/pbs/r.toml:10: datapath.busy_poll: is true, and `kind` is not \"af_xdp\"",
            ),
            ("[datapath]\ninterfaces = [\"a\", \"a\"]\n", "/etc/pbs/r.toml:8: datapath.interfaces: names `a` twice"),
            ("[datapath]\ninterfaces = [\"a b\"]\n", "/etc/pbs/r.toml:8: datapath.interfaces: `a b` is no name of an interface"),
            ("[datapath]\npermissions = 0\n", "/etc/pbs/r.toml:8: datapath.permissions: 0 leaves no room for any permission"),
            ("[datapath]\nworkers = 0\n", "/etc/pbs/r.toml:8: datapath.workers: must be 1 to 16"),
            ("[datapath]\nworkers = 17\n", "/etc/pbs/r.toml:8: datapath.workers: must be 1 to 16"),
            ("[datapath]\nworkers = 2\nfurther_queues = 1\n", "/etc/pbs/r.toml:9: datapath.further_queues: two numbers for each"),
            ("[datapath]\nworkers = 2\nfurther_queues = 65534\n", "/etc/pbs/r.toml:9: datapath.further_queues: two numbers for each"),
            ("[datapath]\nqueue_length = 63\n", "/etc/pbs/r.toml:8: datapath.queue_length: must be 64 to 65536 packets"),
            ("[datapath]\ngather_microseconds = 5001\n", "/etc/pbs/r.toml:8: datapath.gather_microseconds: must be 0 to 5000"),
            ("[datapath]\ncopy_range = 1279\n", "/etc/pbs/r.toml:8: datapath.copy_range: must be 1280 to 65531 octets"),
            ("[datapath]\ncopy_range = 65532\n", "/etc/pbs/r.toml:8: datapath.copy_range: must be 1280 to 65531 octets"),
            ("[datapath]\ndata_queue = 65536\n", "/etc/pbs/r.toml:8: invalid value: integer `65536`, expected u16"),
            ("[datapath]\ndata_queue = \"2\"\n", "/etc/pbs/r.toml:8: invalid type: string \"2\", expected u16"),
            ("[gist]\nnslp_id = 7\n", "/etc/pbs/r.toml:8: gist.nslp_id: 7 is outside the private range 32704-32767"),
            (
                "[[limit]]\npermit = false\nvolume = 1\n",
                "/etc/pbs/r.toml:8: limit.permit: is false: volume, pair_volume and ttl would limit",
            ),
            ("[[limit]]\nvolume = 0\n", "/etc/pbs/r.toml:8: limit.volume: 0 permits nothing: say permit = false"),
            ("[[limit]]\npair_volume = 0\n", "/etc/pbs/r.toml:8: limit.pair_volume: 0 permits nothing: say permit = false"),
            ("[[limit]]\nttl = \"0s\"\n", "/etc/pbs/r.toml:8: limit.ttl: 0 permits nothing: say permit = false"),
            (
                "[datapath]\nsignatures = { per_flow = 4000, in_all = 0 }\n",
                "/etc/pbs/r.toml:8: datapath.signatures.in_all: 0 verifies none: no signed packet would pass",
            ),
            ("[datapath]\nsignatures = { in_all = 1 }\n", "/etc/pbs/r.toml:8: missing field `per_flow`"),
            (
                "[[limit]]\nsource = \"192.0.2.0/24\"\ndestination = \"::/0\"\n",
                "/etc/pbs/r.toml:9: limit.destination: is of another IP version than source: no flow is",
            ),
            ("[[interface]]\nname = \"eth0\"\n", "/etc/pbs/r.toml:7: missing field `mode`"),
            ("[[interface]]\nname = \"a b\"\nmode = \"open\"\n", "/etc/pbs/r.toml:8: interface.name: is no name of an interface"),
            (
                "[[interface]]\nname = \"eth0\"\nmode = \"open\"\negress_rate = 64000\n",
                "/etc/pbs/r.toml:10: interface.egress_rate: is less than 1280000 bits a second",
            ),
            (
                "[[interface]]\nname = \"eth0\"\nmode = \"closed\"\negress_rate = 10000000\n",
                "/etc/pbs/r.toml:10: interface.egress_rate: counts in open mode only",
            ),
            ("[[interface]]\nname = \"eth0\"\nmode = \"shut\"\n", "/etc/pbs/r.toml:9: unknown variant `shut`"),
            ("[[limit]]\nbytes = 1\n", "/etc/pbs/r.toml:8: unknown field `bytes`"),
            ("[[ask]]\n", "/etc/pbs/r.toml:7: unknown field `ask`"),
        ];
        for (rest, expected) in cases {
            let error = complaint(rest);
            assert!(error.starts_with(expected), "{error} instead of {expected}");
        }
        assert!(read("role = \"router\"\nname = \"r\"\n").unwrap_err().to_string().contains("missing field `identity`"));
    }
}
