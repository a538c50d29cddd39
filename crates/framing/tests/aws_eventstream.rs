//! AWS event streams: real messages, written by AWS's own writer, and what can be wrong with them.

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::DateTime;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use witgate_framing::{Framer, FramingError, Limits};
use witgate_model::{EventMessage, Frame, Framing};

fn bytes_of(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_message_to(message, &mut bytes).expect("a message that can be written");
    bytes
}

fn text(value: &str) -> HeaderValue {
    HeaderValue::String(value.to_owned().into())
}

/// An event as Bedrock sends it.
fn event(kind: &str, payload: &str) -> Message {
    Message::new(payload.as_bytes().to_vec())
        .add_header(Header::new(":event-type", text(kind)))
        .add_header(Header::new(":content-type", text("application/json")))
        .add_header(Header::new(":message-type", text("event")))
}

fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Frame {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Frame::Message(EventMessage { headers, payload: payload.to_vec() })
}

fn cut_with(limits: Limits, pieces: &[&[u8]]) -> (Vec<Frame>, Result<(), FramingError>) {
    let mut frames = Vec::new();
    let mut framer = Framer::new(&Framing::AwsEventstream, limits).unwrap();
    for piece in pieces {
        if let Err(error) = framer.push(piece, &mut frames) {
            return (frames, Err(error));
        }
    }
    let end = framer.finish(&mut frames);
    (frames, end)
}

fn cut(pieces: &[&[u8]]) -> (Vec<Frame>, Result<(), FramingError>) {
    cut_with(Limits::default(), pieces)
}

/// A message of these raw parts, its checksums right.
fn forged(total: u32, headers_length: u32, rest: &[u8]) -> Vec<u8> {
    let mut bytes = [total.to_be_bytes(), headers_length.to_be_bytes()].concat();
    bytes.extend(crc32(&bytes).to_be_bytes());
    bytes.extend(rest);
    bytes.extend(crc32(&bytes).to_be_bytes());
    bytes
}

/// The checksum bit by bit: another way than the one under test.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

#[test]
fn messages_come_out_wherever_the_network_cuts_them() {
    let first = bytes_of(&event("messageStart", r#"{"role":"assistant"}"#));
    let second = bytes_of(&event("contentBlockDelta", r#"{"delta":{"text":"grüße"},"p":"abcdefgh"}"#));
    let stream = [first, second].concat();
    let headers = |kind| [(":event-type", kind), (":content-type", "application/json"), (":message-type", "event")];
    let expected = [
        frame(&headers("messageStart"), br#"{"role":"assistant"}"#),
        frame(&headers("contentBlockDelta"), r#"{"delta":{"text":"grüße"},"p":"abcdefgh"}"#.as_bytes()),
    ];
    for at in 0..=stream.len() {
        let (left, right) = stream.split_at(at);
        let (frames, end) = cut(&[left, right]);
        assert_eq!(end, Ok(()), "cut at {at}");
        assert_eq!(frames, expected, "cut at {at}");
    }
    let single: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(cut(&single), (expected.to_vec(), Ok(())));
}

#[test]
fn a_message_is_handed_out_with_its_last_byte() {
    let bytes = bytes_of(&event("messageStop", "{}"));
    let mut frames = Vec::new();
    let mut framer = Framer::new(&Framing::AwsEventstream, Limits::default()).unwrap();
    framer.push(&bytes[..bytes.len() - 1], &mut frames).unwrap();
    assert_eq!(frames, []);
    framer.push(&bytes[bytes.len() - 1..], &mut frames).unwrap();
    assert_eq!(frames.len(), 1);
}

#[test]
fn a_message_without_headers_and_without_payload_is_a_message() {
    assert_eq!(cut(&[&bytes_of(&Message::new(Vec::new()))]), (vec![frame(&[], b"")], Ok(())));
}

#[test]
fn header_values_of_every_type_become_the_documented_text() {
    let message = Message::new(vec![0, 255])
        .add_header(Header::new("true", HeaderValue::Bool(true)))
        .add_header(Header::new("false", HeaderValue::Bool(false)))
        .add_header(Header::new("byte", HeaderValue::Byte(-128)))
        .add_header(Header::new("int16", HeaderValue::Int16(-32_768)))
        .add_header(Header::new("int32", HeaderValue::Int32(i32::MIN)))
        .add_header(Header::new("int64", HeaderValue::Int64(i64::MAX)))
        .add_header(Header::new("bytes", HeaderValue::ByteArray(vec![0xfb, 0xff].into())))
        .add_header(Header::new("empty", text("")))
        .add_header(Header::new("string", text("grüße")))
        .add_header(Header::new("time", HeaderValue::Timestamp(DateTime::from_millis(1_700_000_000_123))))
        .add_header(Header::new("before 1970", HeaderValue::Timestamp(DateTime::from_millis(-1))))
        .add_header(Header::new("uuid", HeaderValue::Uuid(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef)));
    let expected = frame(
        &[
            ("true", "true"),
            ("false", "false"),
            ("byte", "-128"),
            ("int16", "-32768"),
            ("int32", "-2147483648"),
            ("int64", "9223372036854775807"),
            ("bytes", "+/8="),
            ("empty", ""),
            ("string", "grüße"),
            ("time", "1700000000123"),
            ("before 1970", "-1"),
            ("uuid", "01234567-89ab-cdef-0123-456789abcdef"),
        ],
        &[0, 255],
    );
    assert_eq!(cut(&[&bytes_of(&message)]), (vec![expected], Ok(())));
}

#[test]
fn the_first_and_the_last_timestamp_that_fit_are_kept() {
    for millis in [i64::MIN, i64::MAX] {
        // Name "t", type 8, eight bytes.
        let header = [b"\x01t\x08".as_slice(), &millis.to_be_bytes()].concat();
        let bytes = forged(16 + 11, 11, &header);
        assert_eq!(cut(&[&bytes]), (vec![frame(&[("t", &millis.to_string())], b"")], Ok(())));
    }
}

#[test]
fn any_one_flipped_bit_is_an_error_and_what_came_before_is_kept() {
    let good = bytes_of(&event("messageStart", r#"{"role":"assistant"}"#));
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            let (frames, end) = cut(&[&good, &bad]);
            assert_eq!(frames.len(), 1, "byte {at} bit {bit}");
            let part = if at < 12 { "prelude" } else { "message" };
            match end {
                Err(FramingError::Checksum { part: found, offset, found: carried, computed }) => {
                    assert_eq!((found, offset), (part, good.len() as u64), "byte {at} bit {bit}");
                    assert_ne!(carried, computed);
                }
                other => panic!("byte {at} bit {bit}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_json_body_is_refused_at_its_twelfth_byte() {
    let body = br#"{"message":"The security token included in the request is invalid."}"#;
    let mut framer = Framer::new(&Framing::AwsEventstream, Limits::default()).unwrap();
    framer.push(&body[..11], &mut Vec::new()).unwrap();
    let error = framer.push(&body[11..12], &mut Vec::new()).unwrap_err();
    assert!(matches!(error, FramingError::Checksum { part: "prelude", offset: 0, .. }));
    let message = error.to_string();
    assert!(message.starts_with("the prelude checksum of the event-stream message at byte 0 of the answer is 0x"));
    assert!(message.contains("or is no application/vnd.amazon.eventstream"), "{message}");
}

#[test]
fn a_message_above_the_limit_is_refused_by_its_prelude() {
    let bytes = bytes_of(&event("chunk", &"x".repeat(1000)));
    let limit = bytes.len() - 1;
    let exact = Limits { max_frame_bytes: bytes.len(), ..Limits::default() };
    assert_eq!(cut_with(exact, &[&bytes]).1, Ok(()));
    let small = Limits { max_frame_bytes: limit, ..Limits::default() };
    let mut framer = Framer::new(&Framing::AwsEventstream, small).unwrap();
    let error = framer.push(&bytes[..12], &mut Vec::new()).unwrap_err();
    assert_eq!(error, FramingError::TooLarge { what: "the event-stream message", offset: 0, limit });
}

#[test]
fn lengths_that_contradict_each_other_are_malformed() {
    for (total, headers, reason) in [
        (15, 0, "its length says 15 bytes, at least 16 are needed with its 0 bytes of headers"),
        (0, 0, "its length says 0 bytes, at least 16 are needed with its 0 bytes of headers"),
        (20, 5, "its length says 20 bytes, at least 21 are needed with its 5 bytes of headers"),
        (1_000_000, 131_073, "its headers have 131073 bytes, at most 131072 are allowed"),
        (20, u32::MAX, "its headers have 4294967295 bytes, at most 131072 are allowed"),
    ] {
        let (frames, end) = cut(&[&forged(total, headers, b"")]);
        assert_eq!(frames, []);
        assert_eq!(end, Err(FramingError::Malformed { offset: 0, reason: reason.to_owned() }));
    }
}

#[test]
fn headers_that_break_the_format_are_malformed_although_the_checksums_hold() {
    let cases: [(&str, &[u8]); 6] = [
        ("a header of one byte", b"\0"),
        ("a type that does not exist", b"\x01a\x0a"),
        ("a name that leaves the headers", b"\xffa\0"),
        ("a string that leaves the headers", b"\x01a\x07\x00\xffab"),
        ("a name that is not UTF-8", b"\x01\xff\0"),
        ("a string that is not UTF-8", b"\x01a\x07\x00\x01\xff"),
    ];
    for (what, headers) in cases {
        let bytes = forged(16 + headers.len() as u32, headers.len() as u32, headers);
        let (frames, end) = cut(&[&bytes]);
        assert_eq!(frames, [], "{what}");
        assert!(matches!(end, Err(FramingError::Malformed { offset: 0, .. })), "{what}: {end:?}");
    }
}

#[test]
fn a_header_that_reaches_into_the_payload_is_malformed() {
    // The header is five bytes longer than the headers' length says; payload is there to read on.
    let rest = b"\x01a\x07\x00\x05hello and payload";
    let bytes = forged(16 + rest.len() as u32, 5, rest);
    let (frames, end) = cut(&[&bytes]);
    assert_eq!(frames, []);
    assert!(matches!(end, Err(FramingError::Malformed { offset: 0, .. })), "{end:?}");
}

#[test]
fn a_stream_that_ends_inside_a_message_is_truncated() {
    let good = bytes_of(&event("messageStart", "{}"));
    for have in 1..good.len() {
        let (frames, end) = cut(&[&good, &good[..have]]);
        assert_eq!(frames.len(), 1);
        let want = (have >= 12).then_some(good.len());
        assert_eq!(end, Err(FramingError::Truncated { offset: good.len() as u64, have, want }), "{have} bytes");
    }
    assert_eq!(
        cut(&[&good[..20]]).1.unwrap_err().to_string(),
        format!(
            "the answer ended inside the event-stream message that begins at byte 0: 20 bytes of it came, its length \
             says {}",
            good.len()
        )
    );
    assert_eq!(
        cut(&[&good[..3]]).1.unwrap_err().to_string(),
        "the answer ended inside the event-stream message that begins at byte 0: 3 bytes of it came, 12 are needed to \
         know its length"
    );
}

#[test]
fn an_empty_stream_has_no_messages() {
    assert_eq!(cut(&[]), (Vec::new(), Ok(())));
}
