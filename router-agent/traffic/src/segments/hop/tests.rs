use super::*;
use crate::netlink::{Header, Writer, messages};

/// What a reader makes of a message.
fn read<T>(
    kind: u16,
    fixed: &[u8],
    fill: impl FnOnce(&mut Writer),
    reader: impl Fn(&Message<'_>) -> Result<Option<T>, Malformed>,
) -> Option<T> {
    let mut writer = Writer::default();
    writer.message(Header { kind, flags: 0, sequence: 1 }, fixed, fill);
    let octets = writer.finish().unwrap();
    let message = messages(&octets).next().unwrap().unwrap();
    reader(&message).unwrap()
}

fn route(kind: u8, fill: impl FnOnce(&mut Writer)) -> Option<Route> {
    let fixed = [IPV4, 32, 32, 0, 0, 0, 0, kind, 0, 0, 0, 0];
    let fill = |writer: &mut Writer| {
        writer.put_u32(OUTPUT_INTERFACE, 7);
        fill(writer);
    };
    read(NEW_ROUTE, &fixed, fill, read_route)
}

#[test]
fn frames_follow_a_route_that_says_where_to_go_and_nothing_else() {
    let plain = Route { interface: 7, gateway: None, mtu: None };
    assert_eq!(route(UNICAST, |_| {}), Some(plain.clone()));
    let over = |writer: &mut Writer| {
        writer.put(GATEWAY, &[192, 0, 2, 1]);
        writer.nest(METRICS, |metrics| metrics.put_u32(METRIC_MTU, 1400));
    };
    assert_eq!(route(UNICAST, over), Some(Route { gateway: Some([192, 0, 2, 1].into()), mtu: Some(1400), ..plain.clone() }));
    // A neighbour of the other family.
    let other = [[IPV6, 0].as_slice(), &[0xfe; 16]].concat();
    assert_eq!(route(UNICAST, |writer| writer.put(VIA, &other)), Some(Route { gateway: Some([0xfe; 16].into()), ..plain }));
    for kind in [2, 3, 5, 6, 7, 8] {
        assert_eq!(route(kind, |_| {}), None, "to this host, to all, to a group, to nobody: {kind}");
    }
    for attribute in [MULTIPATH, NEW_DESTINATION, ENCAPSULATION_KIND, ENCAPSULATION] {
        assert_eq!(route(UNICAST, |writer| writer.put(attribute, &[0; 8])), None, "{attribute}");
    }
}

#[test]
fn frames_go_to_ethernet_links_that_are_up_and_whose_neighbours_have_addresses() {
    let link = |kind: u16, flags: u32, address: &[u8]| {
        let fixed = [&[0, 0], &kind.to_ne_bytes()[..], &7u32.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 4]].concat();
        let fill = |writer: &mut Writer| {
            writer.put(LINK_ADDRESS, address);
            writer.put_u32(LINK_MTU, 1500);
        };
        read(NEW_LINK, &fixed, fill, read_link)
    };
    assert_eq!(link(ETHERNET, UP | 0x1000, &[2; 6]), Some(Link { address: [2; 6], mtu: 1500 }));
    for (kind, flags, address) in [
        (ETHERNET, 0x1000, [2; 6].as_slice()),
        (ETHERNET, UP | LOOPBACK, &[2; 6]),
        (ETHERNET, UP | NO_ADDRESSES, &[2; 6]),
        (ETHERNET, UP, &[2; 8]),
        (0xfffe, UP, &[2; 6]),
    ] {
        assert_eq!(link(kind, flags, address), None, "{kind} {flags:#x} {address:?}");
    }
}

#[test]
fn of_a_neighbour_its_state_and_address_are_read_and_of_policies_how_many_are_for_what_leaves() {
    let neighbour = |address: &[u8]| {
        let fixed = [&[IPV4, 0, 0, 0, 7, 0, 0, 0][..], &STALE.to_ne_bytes(), &[0, 0]].concat();
        read(NEW_NEIGHBOUR, &fixed, |writer| writer.put(NEIGHBOUR_ADDRESS, address), read_neighbour)
    };
    assert_eq!(neighbour(&[4; 6]), Some(Neighbour { state: STALE, address: [4; 6] }));
    assert_eq!(neighbour(&[4; 4]), None);
    let counts: Vec<u8> = [3u32, 5, 0, 0, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
    assert_eq!(read(0x24, &[0; 4], |writer| writer.put(POLICY_COUNTS, &counts), read_policies), Some(5));
    assert_eq!(read(0x24, &[0; 4], |writer| writer.put(POLICY_COUNTS, &[0; 6]), read_policies), None, "cut short: nobody knows");
}
