//! AWS event streams, read here and by AWS's own reader: both must say the same of any headers.

use aws_smithy_eventstream::frame::{read_message_from, write_headers_to};
use aws_smithy_types::DateTime;
use aws_smithy_types::event_stream::{Header, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use witgate_framing::{Framer, FramingError, Limits};
use witgate_model::{Field, Frame, Framing};

/// A message of these headers, its checksums right.
fn message(headers: &[u8], payload: &[u8]) -> Vec<u8> {
    let total = 16 + headers.len() + payload.len();
    let mut out = [(total as u32).to_be_bytes(), (headers.len() as u32).to_be_bytes()].concat();
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out.extend(headers);
    out.extend(payload);
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out
}

/// A header of AWS's as the contract writes it.
fn field(header: &Header) -> Field {
    let value = match header.value() {
        HeaderValue::Bool(value) => value.to_string(),
        HeaderValue::Byte(value) => value.to_string(),
        HeaderValue::Int16(value) => value.to_string(),
        HeaderValue::Int32(value) => value.to_string(),
        HeaderValue::Int64(value) => value.to_string(),
        HeaderValue::ByteArray(value) => STANDARD.encode(value),
        HeaderValue::String(value) => value.as_str().to_owned(),
        HeaderValue::Timestamp(value) => {
            (i128::from(value.secs()) * 1000 + i128::from(value.subsec_nanos() / 1_000_000)).to_string()
        }
        HeaderValue::Uuid(value) => {
            let hex = format!("{value:032x}");
            [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
        }
        other => panic!("a value that AWS's reader does not make: {other:?}"),
    };
    (header.name().as_str().to_owned(), value)
}

fn value() -> impl Strategy<Value = HeaderValue> {
    prop_oneof![
        any::<bool>().prop_map(HeaderValue::Bool),
        any::<i8>().prop_map(HeaderValue::Byte),
        any::<i16>().prop_map(HeaderValue::Int16),
        any::<i32>().prop_map(HeaderValue::Int32),
        any::<i64>().prop_map(HeaderValue::Int64),
        any::<i64>().prop_map(|millis| HeaderValue::Timestamp(DateTime::from_millis(millis))),
        any::<u128>().prop_map(HeaderValue::Uuid),
        vec(any::<u8>(), 0..20).prop_map(|bytes| HeaderValue::ByteArray(bytes.into())),
        "[a-zA-Zé🦙]{0,12}".prop_map(|text| HeaderValue::String(text.into())),
    ]
}

fn headers() -> impl Strategy<Value = Vec<u8>> {
    vec(("[:a-z-]{1,14}", value()), 0..5).prop_map(|headers| {
        let headers: Vec<_> = headers.into_iter().map(|(name, value)| Header::new(name, value)).collect();
        let mut bytes = Vec::new();
        write_headers_to(&headers, &mut bytes).expect("headers within all bounds");
        bytes
    })
}

fn framer() -> Framer {
    Framer::new(&Framing::AwsEventstream, Limits::default()).unwrap()
}

fn check(framer: &mut Framer, headers: &[u8], payload: &[u8]) -> Result<(), TestCaseError> {
    let bytes = message(headers, payload);
    let mut frames = Vec::new();
    let ours = framer.push(&bytes, &mut frames);
    match read_message_from(&mut bytes.as_slice()) {
        Ok(theirs) => {
            prop_assert_eq!(ours, Ok(()));
            let [Frame::Message(message)] = frames.as_slice() else {
                return Err(TestCaseError::fail(format!("not one message: {frames:?}")));
            };
            prop_assert_eq!(&message.headers, &theirs.headers().iter().map(field).collect::<Vec<_>>());
            prop_assert_eq!(message.payload.as_slice(), theirs.payload().as_ref());
        }
        Err(error) => {
            let ours = matches!(ours, Err(FramingError::Malformed { .. }));
            prop_assert!(ours && frames.is_empty(), "AWS's reader says {}", error);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn good_headers_are_read_as_aws_reads_them(headers in headers(), payload in vec(any::<u8>(), 0..80)) {
        check(&mut framer(), &headers, &payload)?;
    }

    #[test]
    fn damaged_headers_are_refused_where_aws_refuses_them(
        headers in headers(),
        damage in vec((any::<Index>(), any::<u8>()), 0..3),
        end in any::<Index>(),
        payload in vec(any::<u8>(), 0..80),
    ) {
        let mut headers = headers;
        for (place, byte) in damage {
            if !headers.is_empty() {
                let place = place.index(headers.len());
                headers[place] = byte;
            }
        }
        headers.truncate(end.index(headers.len() * 2 + 1));
        check(&mut framer(), &headers, &payload)?;
    }

    #[test]
    fn any_bytes_as_headers_are_read_or_refused_as_aws_does(headers in vec(0..12_u8, 0..24)) {
        check(&mut framer(), &headers, b"payload")?;
    }

    #[test]
    fn messages_of_the_same_and_of_other_headers_follow_each_other(
        few in vec(headers(), 3),
        messages in vec((0..3_usize, vec(any::<u8>(), 0..20)), 0..12),
    ) {
        let mut framer = framer();
        for (headers, payload) in messages {
            check(&mut framer, &few[headers], &payload)?;
        }
    }
}
