//! GIST (RFC 5971): what one router bears on one core.
//!
//! Rates are per second of the router's own time on the processor, so that the load's share of the machine, which is told beside, does
//! not count; what passed by the clock on the wall is told too. A handshake is Query, Response and Confirm with everything
//! that belongs to it: cookies made and judged, rate limits, routing state installed with its timers.

mod core_data;
mod core_handshakes;
mod data;
mod flows;
mod handshakes;
mod memory;
mod node;
mod router;
mod secured;

use super::pairs::Trial;
use super::row::Published;

/// Figures of other implementations.
pub(crate) const LITERATURE: [Published; 6] = [
    Published { what: "GIST sessions held", figure: "45,000", source: GOETTINGEN },
    Published { what: "GIST processing time of a message", figure: "1.1 ms", source: GOETTINGEN },
    Published { what: "GIST memory of a session", figure: "2.4 KB", source: GOETTINGEN },
    Published { what: "D-mode handshakes", figure: "4,600/s", source: TRIED },
    Published { what: "Data messages over one TCP association", figure: "about 33,000/s", source: TRIED },
    Published { what: "memory of a routing-state entry", figure: "4 KB", source: TRIED },
];

const GOETTINGEN: &str = "C++ implementation of the University of Göttingen, published 2009";
const TRIED: &str = "a C++ implementation of the 2000s, tried without logging on a machine like this one, load generator on the same cores";

/// Sessions held where memory is measured.
const SESSIONS: usize = 1_000_000;

/// All rows.
pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![handshakes::trial()];
    trials.extend(data::trials());
    trials.extend(core_handshakes::trials());
    trials.extend(core_data::trials());
    trials.extend(memory::trials());
    trials
}
