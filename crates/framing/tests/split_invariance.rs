//! Invariant 4, the framing's part: any byte-wise split of an answer gives the same frames, and the same error.

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use witgate_framing::{Framer, FramingError, Limits};
use witgate_model::{Frame, Framing};

/// The frames of an answer that comes in these pieces, and its error.
fn cut<'a>(
    framing: &Framing,
    limits: Limits,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Frame>, Option<FramingError>) {
    let mut framer = Framer::new(framing, limits).expect("a known framing");
    let mut frames = Vec::new();
    for piece in pieces {
        if let Err(error) = framer.push(piece, &mut frames) {
            return (joined(framing, frames), Some(error));
        }
    }
    let error = framer.finish(&mut frames).err();
    (joined(framing, frames), error)
}

/// The pieces of `raw` are the network's own: what must be equal is their sum.
fn joined(framing: &Framing, frames: Vec<Frame>) -> Vec<Frame> {
    if *framing != Framing::Raw {
        return frames;
    }
    let bytes = frames.into_iter().flat_map(|frame| match frame {
        Frame::Bytes(bytes) => bytes,
        other => panic!("raw gave {other:?}"),
    });
    vec![Frame::Bytes(bytes.collect())]
}

/// The bytes cut at these places.
fn split<'a>(bytes: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.sort_unstable();
    places.push(bytes.len());
    let mut from = 0;
    let mut pieces = Vec::new();
    for place in places {
        pieces.push(&bytes[from..place]);
        from = place;
    }
    pieces
}

fn check(framing: &Framing, limits: Limits, body: &[u8], cuts: &[Index]) -> Result<(), TestCaseError> {
    let whole = cut(framing, limits, [body]);
    let pieces = split(body, cuts);
    prop_assert_eq!(&cut(framing, limits, pieces.iter().copied()), &whole, "in pieces {:?}", pieces);
    prop_assert_eq!(&cut(framing, limits, body.chunks(1)), &whole, "byte by byte");
    Ok(())
}

fn limits() -> impl Strategy<Value = Limits> {
    prop_oneof![
        Just(Limits::default()),
        (0..64_usize, 0..64_usize)
            .prop_map(|(max_frame_bytes, max_body_bytes)| Limits { max_frame_bytes, max_body_bytes })
    ]
}

fn cuts() -> impl Strategy<Value = Vec<Index>> {
    vec(any::<Index>(), 0..12)
}

/// Texts made of what matters to line framings.
fn lines() -> impl Strategy<Value = Vec<u8>> {
    let token = select(vec![
        "\n",
        "\n",
        "\r",
        "\r\n",
        "\n\n",
        "data: ",
        "data:",
        "data",
        "event: ",
        "event",
        "id:",
        "id: a\0b",
        "retry: 5",
        ": comment",
        ":",
        " ",
        "a",
        "{\"x\":\"grüße 🦙\"}",
        "[DONE]",
        "\u{feff}",
        "\t",
    ]);
    let piece = prop_oneof![8 => token.prop_map(|token| token.as_bytes().to_vec()), 1 => vec(any::<u8>(), 1..4)];
    vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn value() -> impl Strategy<Value = HeaderValue> {
    prop_oneof![
        any::<bool>().prop_map(HeaderValue::Bool),
        any::<i8>().prop_map(HeaderValue::Byte),
        any::<i64>().prop_map(HeaderValue::Int64),
        any::<u128>().prop_map(HeaderValue::Uuid),
        vec(any::<u8>(), 0..20).prop_map(|bytes| HeaderValue::ByteArray(bytes.into())),
        "[a-zA-Zé]{0,12}".prop_map(|text| HeaderValue::String(text.into())),
    ]
}

/// One message as AWS's writer writes it.
fn message() -> impl Strategy<Value = Vec<u8>> {
    (vec(("[:a-z-]{0,14}", value()), 0..5), vec(any::<u8>(), 0..80)).prop_map(|(headers, payload)| {
        let headers = headers.into_iter().map(|(name, value)| Header::new(name, value)).collect();
        let mut bytes = Vec::new();
        write_message_to(&Message::new_from_parts(headers, payload), &mut bytes).expect("a message within all bounds");
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_of_lines_gives_the_same_frames(
        framing in select(vec![Framing::Sse, Framing::Ndjson, Framing::Whole, Framing::Raw]),
        limits in limits(),
        body in lines(),
        cuts in cuts(),
    ) {
        check(&framing, limits, &body, &cuts)?;
    }

    #[test]
    fn any_split_of_any_bytes_gives_the_same_frames(
        framing in select(vec![
            Framing::Sse, Framing::Ndjson, Framing::Whole, Framing::Raw, Framing::AwsEventstream
        ]),
        limits in limits(),
        body in vec(any::<u8>(), 0..200),
        cuts in cuts(),
    ) {
        check(&framing, limits, &body, &cuts)?;
    }

    #[test]
    fn any_split_of_messages_gives_the_same_frames(
        messages in vec(message(), 0..4),
        limits in limits(),
        cuts in cuts(),
    ) {
        let count = messages.len();
        let body = messages.concat();
        check(&Framing::AwsEventstream, limits, &body, &cuts)?;
        let (frames, error) = cut(&Framing::AwsEventstream, Limits::default(), split(&body, &cuts));
        prop_assert_eq!((frames.len(), error), (count, None));
    }

    #[test]
    fn any_split_of_damaged_messages_gives_the_same_frames_and_the_same_error(
        messages in vec(message(), 1..4),
        damage in vec((any::<Index>(), any::<u8>()), 1..3),
        end in any::<Index>(),
        cuts in cuts(),
    ) {
        let mut body = messages.concat();
        for (place, byte) in damage {
            let place = place.index(body.len());
            body[place] = byte;
        }
        // Half of them lose their end too.
        let end = end.index(body.len() * 2);
        body.truncate(end.max(1));
        check(&Framing::AwsEventstream, Limits::default(), &body, &cuts)?;
    }

    #[test]
    fn the_events_of_an_answer_are_those_that_were_written(
        payloads in vec("[ -~é🦙]{0,40}", 0..20),
        end in select(vec!["\n", "\r", "\r\n"]),
        closed in any::<bool>(),
        cuts in cuts(),
    ) {
        let mut body = String::new();
        for payload in &payloads {
            body.push_str(&format!(": keep-alive{end}{end}data: {payload}{end}{end}"));
        }
        if !closed {
            body.truncate(body.len().saturating_sub(end.len()));
        }
        let (frames, error) = cut(&Framing::Sse, Limits::default(), split(body.as_bytes(), &cuts));
        let data: Vec<&str> = frames.iter().map(|frame| match frame {
            Frame::Sse(event) => event.data.as_str(),
            other => panic!("sse gave {other:?}"),
        }).collect();
        prop_assert_eq!(data, payloads);
        prop_assert_eq!(error, None);
    }
}
