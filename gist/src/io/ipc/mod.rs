//! GIST for other programs: the interface of RFC 5971 Appendix B over a Unix socket.
//!
//! # Framing
//!
//! One JSON object a line in each direction, UTF-8, ended by a line feed; a program's are at most [`LONGEST_LINE`] octets long. A payload
//! is a whole number of words of 4 octets (G-370), or `message_status` says `too_large`. Octet strings (session,
//! payload, peer handle) are hexadecimal; times are milliseconds; addresses are text. A key that is not listed here is refused, so
//! that a misspelt one is not taken for its default.
//!
//! A program first says which application it is; what comes for that application is its alone until it hangs up:
//!
//! ```json
//! {"request":"register","nslp_id":32720}
//! {"event":"registered","nslp_id":32720}
//! ```
//!
//! Then requests, in any number, without waiting. `send` (B.1); all but `session`, `mri` and `payload` may be left out:
//!
//! ```json
//! {"request":"send","session":"000102030405060708090a0b0c0d0e0f",
//!  "mri":{"method":"path-coupled","direction":"downstream","source":"10.0.0.1","destination":"10.0.9.1",
//!         "protocol":17,"source_port":4000,"destination_port":9000},
//!  "payload":"68692121","handle":1,"reliable":true,"secure":true,"timeout":2000,"hop_count":12}
//! ```
//!
//! `"stateless":true` sends it by no routing state and makes none; `"to_peer"`, the `peer_handle` of a `received`, sends it to that peer
//! whatever routing state says. `"over"` says what may carry it: `"udp"`, `"tcp"`, `"tls"`, or `"ask"`. If it would be anything else the
//! message is not sent, a `message_proposed` says what it would be, and the program sends it again with that word, or not.
//!
//! Any request may have an `id`, a number of the program's choice; the event that answers it has it too.
//!
//! Further requests, with `session` and `mri` as above:
//!
//! | request | keys | RFC 5971 |
//! |---|---|---|
//! | `set_state_lifetime` | `lifetime`: 0 ends the state | B.5 |
//! | `invalidate_routing_state` | `status`: `tentative` or `bad`; `urgent`: `true` asks the network at once | B.6 |
//! | `adopt_peer` | `peer`: of a `received` that is `tentative` | – |
//! | `show` | `what`: `routing`, `associations` or `counters`; `from`: how many entries to leave out, 0; no session, no flow | – |
//!
//! Methods of an `mri`: `path-coupled` (with `source_prefix`, `destination_prefix`, `protocol`, `ds_field`, `flow_label`, `spi`,
//! `source_port`, `destination_port`, each of which may be left out and then does not restrict the flow; without prefix one host
//! is meant) and `loose-end`.
//!
//! What comes back at any time, one `event` a line:
//!
//! | event | keys | RFC 5971 |
//! |---|---|---|
//! | `registered` | `nslp_id` | – |
//! | `received` | `session`, `mri`, `payload`, `transport`, `association`, `authenticated`, `peer`, `peer_handle`, `tentative`, `unvalidated`, `explicit`, `hop_count`, `ip_distance`, `ip_ttl`, `interface` | B.2 |
//! | `message_status` | `handle`, `session`, `mri`, `error` (a word) and `why` | B.3 |
//! | `message_proposed` | `handle`, `session`, `mri`, `transport`: what would carry a message that has not been sent | B.3 |
//! | `network_notification` | `session`, `mri`, `change` (a word), `former`, `peer`, `authenticated` (that peer) | B.4 |
//! | `shown` | `id`, `what`, and under `content` what was asked for; `total`: how many entries there are; `next`: `from` of the request for those behind, or null | – |
//! | `refused` | `id`, `line`: which of the program's lines, from 1; `why`: it is not a request, or cannot be taken | – |
//!
//! A `shown` has [`PAGE`] entries at most. Each page is of its own moment: what has ended in between moves what is behind it, so that an entry
//! may be missed.
//!
//! `transport` says how a message was carried: `udp`, `tcp` or `tls`. A word as `error` is one of these ([`SendError`](crate::api::SendError)):
//!
//! | word | why the message was not sent |
//! |---|---|
//! | `no_response` | nobody on the path answered |
//! | `association_failed` | the messaging association could not be made, or failed; `why` has the reason |
//! | `no_encapsulation` | nothing that the application offers can carry it as asked for, or there is no way to look for a peer in this direction |
//! | `self_destination` | this node is where it would go |
//! | `too_large` | it does not fit, or is no whole number of words |
//! | `timed_out` | its own `timeout` has passed |
//! | `hop_count_zero` | `hop_count` was 0 |
//! | `queue_full` | a table or queue that it needs is full |
//! | `not_authorised` | whoever answered is not in the authorised peer database, or not for this flow |
//! | `refused` | somebody on the path has sent an Error about the Query; `why` names it |
//! | `unknown_peer` | nobody is known by `to_peer`, or can be reached any more |
//!
//! And a word as `change` one of these ([`NetworkEvent`](crate::api::NetworkEvent)):
//!
//! | word | what happened |
//! |---|---|
//! | `last_node` | nobody further along the path has this application |
//! | `peer_changed` | another peer answers or asks, or the same by another interface or association |
//! | `route_deleted` | the routing state has ended: nobody refreshed it, or nobody answered |
//! | `association_lost` | communication with the peer has failed, and messages may have been lost |
//! | `not_authorised` | the peer is not, or no longer, in the authorised peer database, or its certificate has run out |
//!
//! # Bounds
//!
//! At most [`CLIENTS`] programs at once; the next is hung up on. A program that has [`EVENTS`] events unread is hung up on as well, so that
//! it cannot hold up the others: GIST would have to stop reading associations for all of them. The socket's file belongs to the user
//! who runs the node and is open to nobody else: whoever may open it may send in the node's name.

mod hub;
mod line;
mod mri;
mod server;
mod show;
mod strict;

pub use line::{Asked, Change, Event, Failure, NotALine, Over, Request, Status, Transport, What};
pub use mri::{Direction, Method};
pub use server::{Ipc, IpcError, serve};
pub use show::shown;

/// Longest line in octets, its end included: the longest payload in hexadecimal, and the rest.
pub const LONGEST_LINE: usize = 36 << 10;
/// Programs at once.
pub const CLIENTS: usize = 16;
/// Events that may wait for a program.
pub const EVENTS: usize = 256;
/// Entries in one answer to `show`.
pub const PAGE: usize = 256;
