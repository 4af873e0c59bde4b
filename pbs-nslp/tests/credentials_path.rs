//! Whose certificate is accepted, for which address, at what time, and which keys are strong enough.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod credentials_support;

use bytes::Bytes;
use credentials_support::*;
use pbs_nslp::credentials::{
    AnchorError, Authority, BadSignature, CertificateError, SignatureScheme, Signer, VerifiedKey, X509Authority, X509Signer,
};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose,
    NameConstraints, SanType, date_time_ymd,
};

const HOST: &str = "192.0.2.1";

/// P-067, P-069, P-071: the plain case, and what the answer says.
#[test]
fn certificate_of_a_trusted_authority_is_accepted() {
    let ca = Ca::new("ca");
    let host = ca.host(HOST);
    let key = ca.authority().verify_certificate(host.certificate(), &[], ip(HOST), now()).unwrap();
    assert_eq!((key.scheme, key.public_key.len(), key.not_after_unix), (SignatureScheme::Ed25519, 32, unix(2027, 1)));
    let message = b"permission to send";
    let signature = host.sign(message).unwrap();
    assert_eq!(ca.authority().verify_signature(&key, message, &signature), Ok(()));
    assert_eq!(ca.authority().verify_signature(&key, b"permission to sent", &signature), Err(BadSignature));
    assert_eq!(ca.authority().verify_signature(&key, message, &signature[..63]), Err(BadSignature));
    assert_eq!(ca.authority().verify_signature(&key, message, &[]), Err(BadSignature));
}

/// P-069, X-66: unknown issuer, an issuer of the same name, and a certificate that vouches for itself.
#[test]
fn certificates_of_others_are_untrusted() {
    let ca = Ca::new("ca");
    let check = |certificate: &Bytes| ca.authority().verify_certificate(certificate, &[], ip(HOST), now());
    assert_untrusted(check(Ca::new("other").host(HOST).certificate()), "unknown issuer");
    assert_untrusted(check(Ca::new("ca").host(HOST).certificate()), "not signed by the issuer it names");
    let self_signed: Bytes = host_parameters(HOST).self_signed(&ed25519()).unwrap().der().to_vec().into();
    assert_untrusted(check(&self_signed), "unknown issuer");
}

/// P-069: validity at the given time, the ends included (RFC 5280 §4.1.2.5).
#[test]
fn certificates_hold_from_not_before_to_not_after() {
    let ca = Ca::new("ca");
    let host = ca.host(HOST);
    let at = |time| ca.authority().verify_certificate(host.certificate(), &[], ip(HOST), time).map(|_| ());
    assert_eq!(at(unix(2026, 1) - 1), Err(CertificateError::NotYetValid));
    assert_eq!(at(unix(2026, 1)), Ok(()));
    assert_eq!(at(unix(2027, 1)), Ok(()));
    assert_eq!(at(unix(2027, 1) + 1), Err(CertificateError::Expired));
}

/// P-070, P-071, X-65: what ties the key to an address is the iPAddress of the subject alternative name and nothing else.
#[test]
fn certificate_must_name_the_address() {
    let ca = Ca::new("ca");
    let check = |names: Vec<SanType>, address: &str| {
        let mut parameters = host_parameters(HOST);
        parameters.subject_alt_names = names;
        let certificate = ca.certify(&parameters, &ed25519());
        ca.authority().verify_certificate(&certificate, &[], ip(address), now()).map(|_| ())
    };
    let name = |address: &str| SanType::IpAddress(ip(address));
    assert_eq!(check(vec![name("2001:db8::1")], "2001:db8::1"), Ok(()));
    assert_eq!(check(vec![name("198.51.100.9"), name("2001:db8::1"), name(HOST)], HOST), Ok(()));
    let unbound = |address: &str| Err(CertificateError::AddressBinding(ip(address)));
    assert_eq!(check(vec![name("192.0.2.2")], HOST), unbound(HOST));
    assert_eq!(check(vec![name(HOST)], "2001:db8::1"), unbound("2001:db8::1"));
    assert_eq!(check(vec![name(HOST)], "::ffff:192.0.2.1"), unbound("::ffff:192.0.2.1"));
    assert_eq!(check(vec![name("::ffff:192.0.2.1")], HOST), unbound(HOST));
    assert_eq!(check(vec![SanType::DnsName("192.0.2.1".try_into().unwrap())], HOST), unbound(HOST));
    assert_eq!(check(vec![], HOST), unbound(HOST));
}

/// P-069: a CA is not a host, and a host is not a CA: basic constraints, path length, key usage.
#[test]
fn hosts_and_authorities_are_not_mistaken_for_each_other() {
    let ca = Ca::new("ca");
    let check = |certificate: &Bytes, chain: &[Bytes]| ca.authority().verify_certificate(certificate, chain, ip(HOST), now());

    let mut authority_as_leaf = host_parameters(HOST);
    authority_as_leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    assert_untrusted(check(&ca.certify(&authority_as_leaf, &ed25519()), &[]), "a CA certificate, not that of a host");

    for not_a_ca in [IsCa::NoCa, IsCa::ExplicitNoCa] {
        let host_as_issuer = ca.subordinate("host", |parameters| parameters.is_ca = not_a_ca);
        assert_untrusted(
            check(host_as_issuer.host(HOST).certificate(), &[host_as_issuer.certificate]),
            "an issuer on the path may not issue",
        );
    }
    let short = ca.subordinate("short", |parameters| parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let below = short.subordinate("below", |_| {});
    check(short.host(HOST).certificate(), std::slice::from_ref(&short.certificate)).unwrap();
    assert_untrusted(
        check(below.host(HOST).certificate(), &[below.certificate.clone(), short.certificate]),
        "an issuer on the path may not have that many below it",
    );

    let may_not_sign = ca.subordinate("silent", |parameters| parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
    assert_untrusted(check(may_not_sign.host(HOST).certificate(), &[may_not_sign.certificate]), "an issuer on the path may not issue");
}

/// P-069: key usage must allow signatures, extended key usage client authentication; absent is good enough.
#[test]
fn host_key_must_be_meant_for_signatures() {
    let ca = Ca::new("ca");
    let check = |change: fn(&mut CertificateParams)| {
        let mut parameters = host_parameters(HOST);
        change(&mut parameters);
        ca.authority().verify_certificate(&ca.certify(&parameters, &ed25519()), &[], ip(HOST), now())
    };
    check(|parameters| parameters.key_usages.clear()).unwrap();
    check(|parameters| parameters.extended_key_usages.clear()).unwrap();
    check(|parameters| parameters.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth)).unwrap();
    assert_untrusted(check(|parameters| parameters.key_usages = vec![KeyUsagePurpose::KeyAgreement]), "key usage excludes signatures");
    assert_untrusted(
        check(|parameters| parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        "extended key usage lacks client authentication",
    );
    let unknown = |critical| {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
        extension.set_criticality(critical);
        let mut parameters = host_parameters(HOST);
        parameters.custom_extensions.push(extension);
        ca.authority().verify_certificate(&ca.certify(&parameters, &ed25519()), &[], ip(HOST), now())
    };
    unknown(false).unwrap();
    assert_untrusted(unknown(true), "unknown critical extension");
}

/// P-072, X-22: intermediates in the message, four certificates at most; validity is the shortest on the path.
#[test]
fn intermediates_make_a_path_of_at_most_four() {
    let root = Ca::new("root");
    let one = root.subordinate("one", |parameters| parameters.not_after = date_time_ymd(2026, 9, 1));
    let two = one.subordinate("two", |_| {});
    let three = two.subordinate("three", |_| {});
    let four = three.subordinate("four", |_| {});
    let chain = |issuers: &[&Ca]| issuers.iter().map(|issuer| issuer.certificate.clone()).collect::<Vec<_>>();
    let check =
        |issuer: &Ca, chain: &[Bytes], time| root.authority().verify_certificate(issuer.host(HOST).certificate(), chain, ip(HOST), time);

    let key = check(&three, &chain(&[&three, &two, &one]), now()).unwrap();
    assert_eq!(key.not_after_unix, unix(2026, 9));
    assert_eq!(check(&three, &chain(&[&three, &two, &one]), unix(2026, 10)), Err(CertificateError::Expired));
    assert_untrusted(check(&three, &chain(&[&three, &one]), now()), "unknown issuer");
    assert_untrusted(check(&three, &[], now()), "unknown issuer");
    assert_untrusted(check(&four, &chain(&[&four, &three, &two, &one]), now()), "path too long");
}

/// RFC 5280 §4.2.1.10: an authority for one prefix cannot vouch for addresses outside it.
#[test]
fn name_constraints_limit_an_authority_to_its_prefix() {
    let root = Ca::new("root");
    let limited = root.subordinate("limited", |parameters| {
        let prefix = GeneralSubtree::IpAddress(rcgen::CidrSubnet::V4([192, 0, 2, 0], [255, 255, 255, 0]));
        parameters.name_constraints = Some(NameConstraints { permitted_subtrees: vec![prefix], excluded_subtrees: vec![] });
    });
    let check = |address: &str| {
        let host = limited.host(address);
        root.authority().verify_certificate(host.certificate(), std::slice::from_ref(&limited.certificate), ip(address), now())
    };
    check(HOST).unwrap();
    assert_untrusted(check("198.51.100.1"), "an issuer on the path may not issue for this name");
}

/// P-074, X-67: key types and sizes below the floor, and those without a scheme.
#[test]
fn weak_keys_are_refused() {
    let ca = Ca::new("ca");
    let check = |key: Vec<u8>, algorithm| {
        let certificate = ca.certify(&host_parameters(HOST), &StatedKey { key, algorithm });
        ca.authority().verify_certificate(&certificate, &[], ip(HOST), now())
    };
    let weak = |result: Result<VerifiedKey, CertificateError>, reason: &str| match result {
        Err(CertificateError::WeakKey(text)) => assert_eq!(text, reason),
        other => panic!("{other:?}"),
    };
    weak(check(rsa_key(128), &rcgen::PKCS_RSA_SHA256), "RSA key of 1024 bits");
    weak(check(rsa_key(255), &rcgen::PKCS_RSA_SHA256), "RSA key of 2040 bits");
    weak(check(rsa_key(1025), &rcgen::PKCS_RSA_SHA256), "RSA key of 8200 bits");
    weak(check(vec![2; 33], &rcgen::PKCS_ECDSA_P256_SHA256), "elliptic-curve point is not in uncompressed form");
    weak(check(vec![4; 31], &rcgen::PKCS_ED25519), "key type 1.3.101.112");
    assert!(matches!(check(vec![1, 2, 3], &rcgen::PKCS_RSA_SHA256), Err(CertificateError::Malformed(_))));
    assert_eq!(check(rsa_key(256), &rcgen::PKCS_RSA_SHA256).unwrap().scheme, SignatureScheme::RsaPss);
}

/// X-66, P-073: configured revocation lists; Notify detail 3.
#[test]
fn revoked_certificates_are_refused() {
    let ca = Ca::new("ca");
    let certificate = |serial: u64| {
        let mut parameters = host_parameters(HOST);
        parameters.serial_number = Some(serial.into());
        ca.certify(&parameters, &ed25519())
    };
    let authority = ca.authority().with_revocation_lists(&[ca.revocation_list(&[7])]).unwrap();
    let check = |serial, time| authority.verify_certificate(&certificate(serial), &[], ip(HOST), time).map(|_| ());
    assert_eq!(check(7, now()), Err(CertificateError::Revoked));
    assert_eq!(check(8, now()), Ok(()));
    assert_eq!(check(8, unix(2026, 9)), Err(CertificateError::Untrusted("revocation list out of date".to_owned())));
    let garbage = ca.authority().with_revocation_lists(&[Bytes::from_static(b"no list")]);
    assert!(matches!(garbage, Err(AnchorError::RevocationList(_))));
}

/// what was verified before a list was read is found again in it, the host's certificate or one above it; and a list that is out
/// of date speaks against all of its issuer, and of nobody else.
#[test]
fn what_was_verified_before_is_believed_no_longer_than_the_lists_allow() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let below = ca.subordinate("below", |parameters| parameters.serial_number = Some(5_u64.into()));
    let path = |issuer: &Ca, serial: u64, chain: &[Bytes]| {
        let mut parameters = host_parameters(HOST);
        parameters.serial_number = Some(serial.into());
        let (certificate, trusted) =
            (issuer.certify(&parameters, &ed25519()), X509Authority::new(&[ca.certificate.clone(), other.certificate.clone()]));
        trusted.unwrap().verify_certificate(&certificate, chain, ip(HOST), now()).unwrap().path
    };
    let (direct, indirect) = (path(&ca, 7, &[]), path(&below, 7, std::slice::from_ref(&below.certificate)));
    let of_other = path(&other, 7, &[]);
    let now_with = |lists: &[Bytes], path, time| ca.authority().with_revocation_lists(lists).unwrap().still_believes(path, time);
    let check = |serials: &[u64], path| now_with(&[ca.revocation_list(serials)], path, now());
    assert_eq!(now_with(&[], &direct, now()), Ok(()));
    assert_eq!(check(&[7], &direct), Err(CertificateError::Revoked));
    assert_eq!(check(&[6, 8], &direct), Ok(()));
    assert_eq!(check(&[7], &indirect), Ok(()), "another issuer's number");
    assert_eq!(check(&[5], &indirect), Err(CertificateError::Revoked), "the one above");
    assert_eq!(check(&[5, 7], &of_other), Ok(()));
    let later = unix(2026, 9);
    let out_of_date = Err(CertificateError::Untrusted("revocation list out of date".to_owned()));
    assert_eq!(now_with(&[ca.revocation_list(&[])], &direct, later), out_of_date);
    assert_eq!(now_with(&[ca.revocation_list(&[])], &indirect, later), out_of_date);
    assert_eq!(now_with(&[ca.revocation_list(&[])], &of_other, later), Ok(()));
}

/// Bytes that are no certificate, cut short, with something after it, or damaged anywhere.
#[test]
fn damaged_certificates_are_refused() {
    let ca = Ca::new("ca");
    let certificate = ca.host(HOST).certificate().clone();
    let authority = ca.authority();
    let check = |bytes: &[u8]| authority.verify_certificate(bytes, &[], ip(HOST), now());
    for length in 0..certificate.len() {
        assert!(matches!(check(&certificate[..length]), Err(CertificateError::Malformed(_))), "{length}");
    }
    assert!(matches!(check(&[&certificate[..], &[0]].concat()), Err(CertificateError::Malformed(_))));
    for bit in 0..certificate.len() * 8 {
        let mut changed = certificate.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        check(&changed).expect_err("changed");
    }
}

/// Appendix C: the details of Notify 10.
#[test]
fn certificate_errors_have_the_details_of_the_list() {
    let text = || "text".to_owned();
    for (error, detail) in [
        (CertificateError::Expired, 1),
        (CertificateError::NotYetValid, 1),
        (CertificateError::Untrusted(text()), 2),
        (CertificateError::Malformed(text()), 2),
        (CertificateError::Revoked, 3),
        (CertificateError::AddressBinding(ip(HOST)), 4),
        (CertificateError::WeakKey(text()), 5),
    ] {
        assert_eq!(error.detail(), detail, "{error}");
    }
}

/// Trust needs at least one CA certificate.
#[test]
fn anchors_must_be_authorities() {
    assert_eq!(X509Authority::new(&[]).unwrap_err(), AnchorError::None);
    assert!(matches!(X509Authority::new(&[Bytes::from_static(b"no certificate")]), Err(AnchorError::Malformed(_))));
    let host = Ca::new("ca").host(HOST);
    assert!(matches!(X509Authority::new(std::slice::from_ref(host.certificate())), Err(AnchorError::NotAuthority(_))));
}

/// A signer takes only a key that belongs to its certificate.
#[test]
fn signer_needs_the_key_of_its_certificate() {
    let ca = Ca::new("ca");
    for algorithm in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P256_SHA256] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = ca.certify(&host_parameters(HOST), &key);
        let signer = X509Signer::from_der(vec![certificate.clone(), ca.certificate.clone()], &key.serialize_der()).unwrap();
        assert_eq!((signer.certificate(), signer.chain()), (&certificate, &[ca.certificate.clone()][..]));
        assert_eq!(signer.sign(b"x").unwrap().len(), signer.signature_length());
        assert!(!format!("{signer:?}").contains("key"), "private");

        let other = KeyPair::generate_for(algorithm).unwrap();
        let error = |certificates: Vec<Bytes>, key: &[u8]| X509Signer::from_der(certificates, key).unwrap_err().to_string();
        let mismatch = "the private key does not belong to the certificate";
        assert_eq!(error(vec![certificate.clone()], &other.serialize_der()), mismatch);
        assert!(error(vec![certificate.clone()], b"no key").starts_with("private key: "));
        assert_eq!(error(vec![], &key.serialize_der()), "no certificate");
        assert_eq!(error(vec![certificate.clone(); 5], &key.serialize_der()), "more than 3 intermediate certificates");
        assert!(error(vec![certificate, Bytes::from_static(b"x")], &key.serialize_der()).starts_with("malformed certificate"));
    }
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let certificate = ca.certify(&host_parameters(HOST), &key);
    let error = X509Signer::from_der(vec![certificate], &key.serialize_der()).unwrap_err();
    assert_eq!(error.to_string(), "no signing with EcdsaP384 keys");
}

/// An RSAPublicKey whose modulus has this many bytes, all ones.
fn rsa_key(modulus_length: usize) -> Vec<u8> {
    let integer =
        [vec![2, 0x82], u16::try_from(modulus_length + 1).unwrap().to_be_bytes().to_vec(), vec![0], vec![0xff; modulus_length]].concat();
    let fields = [if modulus_length < 255 { short_integer(modulus_length) } else { integer }, vec![2, 3, 1, 0, 1]].concat();
    let length = u16::try_from(fields.len()).unwrap().to_be_bytes();
    let header = if fields.len() < 256 { vec![0x30, 0x81, length[1]] } else { vec![0x30, 0x82, length[0], length[1]] };
    [header, fields].concat()
}

fn short_integer(modulus_length: usize) -> Vec<u8> {
    [vec![2, 0x81, u8::try_from(modulus_length + 1).unwrap(), 0], vec![0xff; modulus_length]].concat()
}

fn assert_untrusted(result: Result<VerifiedKey, CertificateError>, reason: &str) {
    assert_eq!(result, Err(CertificateError::Untrusted(reason.to_owned())));
}
