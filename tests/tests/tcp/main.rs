//! TCP between plain sockets through sender host, router and receiver host, with the real daemons on the kernel's own packets:
//! each direction of a connection has its own permission.
//!
//! The program is its own daemons: started under their names, it becomes them. So it runs its tests itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]

mod change;
mod connection;
mod ending;
mod past;
mod site;
mod transfer;

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;

const TESTS: [(&str, fn()); 19] = [
    ("ten_megabytes_arrive_over_ipv4_every_packet_under_ah", transfer::ten_megabytes_over_ipv4),
    ("ten_megabytes_arrive_over_ipv6_every_packet_under_ah", transfer::ten_megabytes_over_ipv6),
    ("ten_megabytes_arrive_in_super_packets_that_the_daemon_cuts", transfer::in_super_packets),
    ("ten_megabytes_arrive_past_the_queues_of_both_hosts_in_far_fewer_packets", past::files),
    ("a_strict_reverse_path_filter_lets_by_what_comes_past_the_queue", past::strict_reverse_path),
    ("what_is_forged_or_comes_twice_past_the_queue_is_dropped_and_counted", past::forged_and_replayed),
    ("nothing_comes_past_the_queue_of_a_host_whose_daemon_is_killed_until_it_is_there_again", past::killed),
    ("without_what_it_needs_everything_comes_by_the_queue_and_status_says_why", past::refused),
    ("a_small_permission_is_extended_while_the_file_goes", transfer::extended_forward),
    ("the_reverse_flow_is_extended_while_a_file_comes_back", transfer::extended_reverse),
    ("connections_come_up_in_two_grants", connection::time_to_connect),
    ("a_released_connection_leaves_no_permission_at_any_node", ending::released),
    ("a_revoked_connection_stops_in_both_directions", ending::revoked),
    ("keys_change_under_a_running_connection_and_no_packet_is_dropped", change::rekeyed),
    ("a_connection_goes_on_with_signed_packets_when_the_receiver_says_so", change::signed),
    ("a_connection_goes_on_with_packets_signed_by_an_rsa_key", change::signed_by_rsa),
    ("what_the_receiver_changes_unasked_holds_at_every_node", change::amended),
    ("words_go_on_after_the_sending_host_restarts", ending::sender_restarts),
    ("words_go_on_after_the_receiving_host_restarts", ending::receiver_restarts),
];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let name = arguments[0].to_string_lossy().into_owned();
    if ["pbs", "pbs-router"].contains(&name.as_str()) {
        return pbs_lab::run(arguments);
    }
    let options: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<&String> = options.iter().filter(|option| !option.starts_with('-')).collect();
    let wanted = TESTS.iter().filter(|(name, _)| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str())));
    if options.iter().any(|option| option == "--list") {
        wanted.for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if !pbs_lab::may_make_networks() {
        return ExitCode::SUCCESS;
    }
    // Each has its own network, and mostly waits.
    let (left, failed) = (Mutex::new(wanted), Mutex::new(0));
    thread::scope(|scope| {
        for _ in 0..at_once() {
            scope.spawn(|| {
                loop {
                    let Some((name, test)) = left.lock().unwrap().next() else { return };
                    let holds = catch_unwind(test).is_ok();
                    *failed.lock().unwrap() += u32::from(!holds);
                    println!("test {name} ... {}", if holds { "ok" } else { "FAILED" });
                }
            });
        }
    });
    if *failed.lock().unwrap() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How many tests run at the same time, by the rule of Rust's own harness.
fn at_once() -> usize {
    let told = std::env::var("RUST_TEST_THREADS").ok().and_then(|count| count.parse().ok());
    told.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from)).max(1)
}
