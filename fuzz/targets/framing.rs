//! Any bytes through each framing: no panic, and the same frames and the same error however they are cut.
//!
//! The first byte picks the framing (its low four bits) and the limits (the others); the rest is the answer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use witgate_framing::{FramingError, Limits};
use witgate_fuzz::{cut, pieces, with_checksums, written};
use witgate_model::{Frame, Framing};

fuzz_target!(|input: &[u8]| {
    let Some((&choice, body)) = input.split_first() else { return };
    let (framing, body) = match choice & 15 {
        0 => (Framing::Whole, body.to_vec()),
        1 | 2 => (Framing::Sse, body.to_vec()),
        3 => (Framing::Ndjson, body.to_vec()),
        4 => (Framing::AwsEventstream, body.to_vec()),
        5 | 6 => (Framing::AwsEventstream, with_checksums(body)),
        7 => (Framing::AwsEventstream, written(body)),
        8 => (Framing::Raw, body.to_vec()),
        _ => return,
    };
    let limits = match choice >> 4 {
        0 => Limits::default(),
        size => {
            let max = 1 << size;
            Limits { max_frame_bytes: max, max_body_bytes: max * 2 }
        }
    };

    let whole = cut(&framing, limits, [body.as_slice()]);
    let error = whole.error.clone();
    let frames = whole.frames(&framing);
    for pieces in [pieces(&body), body.chunks(1).collect()] {
        let other = cut(&framing, limits, pieces);
        assert_eq!(other.error, error, "the error depends on the cut");
        assert!(other.frames(&framing) == frames, "the frames depend on the cut");
    }

    if let Some(error) = &error {
        assert!(!error.to_string().is_empty());
        assert!(!matches!(error, FramingError::Unknown(_) | FramingError::Finished), "{error:?}");
    }
    for frame in &frames {
        match (&framing, frame) {
            (Framing::Whole | Framing::Raw, Frame::Bytes(bytes)) => {
                assert_eq!(*bytes, body);
            }
            (Framing::Sse, Frame::Sse(event)) => {
                assert!(!event.data.contains('\r'), "a CR in the data");
                assert!(event.event.as_ref().is_none_or(|event| !event.is_empty()), "an empty type");
                assert!(event.id.as_ref().is_none_or(|id| !id.contains('\0')), "an id with a NUL");
                for name in [&event.event, &event.id].into_iter().flatten() {
                    assert!(!name.contains(['\r', '\n']), "a line end in a field of one line");
                }
                // Each invalid byte may have become three.
                assert!(event.data.len() / 3 <= limits.max_frame_bytes, "larger than its limit");
            }
            (Framing::Ndjson, Frame::Line(line)) => {
                assert!(!line.contains('\n') && !line.trim_ascii().is_empty());
                assert!(line.len() / 3 <= limits.max_frame_bytes, "larger than its limit");
            }
            (Framing::AwsEventstream, Frame::Message(message)) => {
                assert!(message.payload.len() + 16 <= limits.max_frame_bytes, "larger than its limit");
            }
            (framing, frame) => panic!("{framing:?} gave {frame:?}"),
        }
    }
});
