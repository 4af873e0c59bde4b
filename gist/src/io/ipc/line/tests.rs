//! Lines read and written.

use super::*;

#[test]
fn a_request_is_read_and_what_is_left_out_has_its_default() {
    let line = br#"{"request":"send","session":"000102030405060708090a0b0c0d0e0f","payload":"68692121",
        "mri":{"method":"loose-end","direction":"downstream","source":"10.0.0.1","destination":"10.0.9.1"}}"#;
    let Some(crate::api::Request::Send(message)) = Asked::read(line).unwrap().request.of_application(NslpId(9)) else { panic!() };
    assert_eq!((message.nslp_id, message.payload.as_ref(), message.handle), (NslpId(9), &b"hi!!"[..], MessageHandle(0)));
    assert_eq!((message.attributes, message.timeout, message.hop_count), (TransferAttributes::default(), None, None));
    assert_eq!(message.session.0[15], 15);
}

#[test]
fn a_line_that_is_not_quite_a_request_says_what_is_wrong() {
    let wrong = |line: &str| Asked::read(line.as_bytes()).unwrap_err().to_string();
    assert!(wrong(r#"{"request":"sned"}"#).contains("unknown variant `sned`"));
    assert!(wrong(r#"{"request":"register","nslp_id":1,"raw":2}"#).contains("unknown field `raw`"));
    assert!(wrong(r#"{"request":"register","nslp_id":65536}"#).contains("65536"));
    let session = |text: &str| {
        let mri = r#"{"method":"loose-end","direction":"upstream","source":"10.0.0.1","destination":"10.0.9.1"}"#;
        wrong(&format!(r#"{{"request":"set_state_lifetime","session":"{text}","lifetime":0,"mri":{mri}}}"#))
    };
    assert!(session("00").contains("another length"));
    assert!(session("zz").contains("not hexadecimal"));
    assert!(wrong("").starts_with("not a request"));
    assert!(wrong("[]").contains("not an object"));
    assert!(wrong(r#"{"request":"register","nslp_id":1,"nslp_id":2}"#).contains("duplicate field `nslp_id`"));
    assert!(wrong(r#"{"id":1,"id":2,"request":"show","what":"routing"}"#).contains("duplicate field `id`"));
    let twice = r#"{"method":"loose-end","direction":"upstream","source":"10.0.0.1","source":"10.0.0.2","destination":"10.0.9.1"}"#;
    let asked = format!(r#"{{"request":"set_state_lifetime","session":"{}","lifetime":0,"mri":{twice}}}"#, "07".repeat(16));
    assert!(wrong(&asked).contains("duplicate field `source`"));
}
