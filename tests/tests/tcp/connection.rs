//! How long a connection takes to come up.

use std::time::Duration;

use pbs_lab::network::topology::Family;

use crate::site::{LARGE, Site};

pub(crate) fn time_to_connect() {
    for family in [Family::Ipv4, Family::Ipv6] {
        let site = Site::start();
        let mut times: Vec<Duration> = (0..21)
            .map(|_| {
                let server = site.serve(family, LARGE.port, drop);
                let (_, took) = site.connect(family, LARGE.port);
                server.join().unwrap();
                took
            })
            .collect();
        let cold = times.remove(0);
        times.sort();
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "  {family:?}: connected after {:.1} ms with no association, then median {:.1} ms, longest {:.1} ms",
            milliseconds(cold),
            milliseconds(times[times.len() / 2]),
            milliseconds(times[times.len() - 1])
        );
        // No segment had to be sent twice: the first retransmission comes after a second.
        assert!(cold < Duration::from_secs(1) && times.iter().all(|time| *time < Duration::from_secs(1)), "{}", site.logs());
    }
}
