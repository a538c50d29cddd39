//! The rules of each framing, one by one.

use witgate_framing::{Framer, FramingError, Limits};
use witgate_model::{Frame, Framing, SseEvent};

/// What one answer gave: its frames, and how it ended.
type Outcome = (Vec<Frame>, Result<(), FramingError>);

/// Cuts the answer that comes in these pieces.
fn cut_with(framing: &Framing, limits: Limits, pieces: &[&[u8]]) -> Outcome {
    let mut frames = Vec::new();
    let mut framer = Framer::new(framing, limits).expect("a known framing");
    for piece in pieces {
        if let Err(error) = framer.push(piece, &mut frames) {
            return (frames, Err(error));
        }
    }
    let end = framer.finish(&mut frames);
    (frames, end)
}

fn cut(framing: &Framing, pieces: &[&[u8]]) -> Vec<Frame> {
    let (frames, end) = cut_with(framing, Limits::default(), pieces);
    end.expect("a good answer");
    frames
}

fn small(max_frame_bytes: usize) -> Limits {
    Limits { max_frame_bytes, max_body_bytes: max_frame_bytes }
}

/// The events of an answer; asserts that it gives the same ones byte by byte.
fn events(body: &[u8]) -> Vec<SseEvent> {
    let whole = cut(&Framing::Sse, &[body]);
    let bytes: Vec<&[u8]> = body.chunks(1).collect();
    assert_eq!(cut(&Framing::Sse, &bytes), whole, "byte by byte");
    let event = |frame| match frame {
        Frame::Sse(event) => event,
        other => panic!("not an event: {other:?}"),
    };
    whole.into_iter().map(event).collect()
}

fn data(body: &[u8]) -> Vec<String> {
    events(body).into_iter().map(|event| event.data).collect()
}

mod sse {
    use super::*;

    #[test]
    fn an_event_has_its_type_its_data_and_its_id() {
        assert_eq!(
            events(b"event: ping\nid: 7\ndata: {}\n\n"),
            [SseEvent { event: Some("ping".into()), data: "{}".into(), id: Some("7".into()) }]
        );
    }

    #[test]
    fn an_event_is_handed_out_as_soon_as_its_blank_line_ends() {
        for end in ["\n\n", "\r\r", "\r\n\r", "\n\r"] {
            let mut frames = Vec::new();
            let mut framer = Framer::new(&Framing::Sse, Limits::default()).unwrap();
            framer.push(b"data: a", &mut frames).unwrap();
            framer.push(&end.as_bytes()[..end.len() - 1], &mut frames).unwrap();
            assert_eq!(frames, [], "{end:?}");
            framer.push(&end.as_bytes()[end.len() - 1..], &mut frames).unwrap();
            assert_eq!(frames.len(), 1, "{end:?}");
        }
    }

    #[test]
    fn lines_end_with_lf_cr_or_crlf_in_any_mixture() {
        for end in ["\n", "\r", "\r\n"] {
            let body = ["data: a", "data: b", "", "data: c", "", ""].join(end);
            assert_eq!(data(body.as_bytes()), ["a\nb", "c"], "{end:?}");
        }
        assert_eq!(data(b"data: a\rdata: b\r\ndata: c\n\rdata: d\r\r\ndata: e\n\n"), ["a\nb\nc", "d", "e"]);
    }

    #[test]
    fn a_crlf_that_the_network_cut_is_one_line_end() {
        let pieces: [&[u8]; 5] = [b"data: a\r", b"\ndata: b\r", b"", b"\n\r", b"\n"];
        let (frames, end) = cut_with(&Framing::Sse, Limits::default(), &pieces);
        end.unwrap();
        assert_eq!(frames, [Frame::Sse(SseEvent { data: "a\nb".into(), ..SseEvent::default() })]);
    }

    #[test]
    fn data_lines_are_joined_by_line_feeds() {
        assert_eq!(data(b"data: YHOO\ndata: +2\ndata: 10\n\n"), ["YHOO\n+2\n10"]);
        assert_eq!(data(b"data: {\ndata\ndata: }\n\n"), ["{\n\n}"]);
    }

    #[test]
    fn one_blank_behind_the_colon_is_dropped_and_no_more() {
        assert_eq!(data(b"data:a\n\ndata: a\n\ndata:  a\n\ndata:\ta\n\ndata: a \n\n"), ["a", "a", " a", "\ta", "a "]);
    }

    #[test]
    fn only_the_first_colon_ends_the_name() {
        assert_eq!(data(b"data: a:b: c\n\ndata::\n\n"), ["a:b: c", ":"]);
    }

    #[test]
    fn a_field_without_a_colon_has_an_empty_value() {
        // The standard's own example.
        assert_eq!(data(b"data\n\ndata\ndata\n\ndata:"), ["", "\n", ""]);
    }

    #[test]
    fn comments_are_dropped() {
        assert_eq!(data(b": keep-alive\n\n:\n\n:data: x\ndata: a\n: between\ndata: b\n\n"), ["a\nb"]);
    }

    #[test]
    fn unknown_fields_and_retry_are_dropped_and_names_are_exact() {
        assert_eq!(data(b"retry: 10\nfoo: bar\nDATA: x\n data: x\ndata : x\ndatas: x\ndata: a\n\n"), ["a"]);
    }

    #[test]
    fn an_event_without_data_is_not_handed_out_and_leaves_nothing_behind() {
        assert_eq!(
            events(b"event: ping\nid: 1\n\ndata: a\n\n"),
            [SseEvent { event: None, data: "a".into(), id: None }]
        );
    }

    #[test]
    fn the_last_event_and_id_field_of_an_event_count() {
        assert_eq!(
            events(b"event: a\nid: 1\nevent: b\nid: 2\ndata: x\n\ndata: y\n\n"),
            [
                SseEvent { event: Some("b".into()), data: "x".into(), id: Some("2".into()) },
                SseEvent { event: None, data: "y".into(), id: None }
            ]
        );
    }

    #[test]
    fn an_empty_event_field_is_none_and_an_empty_id_is_empty() {
        assert_eq!(
            events(b"event: a\nevent:\nid\ndata: x\n\n"),
            [SseEvent { event: None, data: "x".into(), id: Some(String::new()) }]
        );
    }

    #[test]
    fn an_id_with_a_nul_is_ignored() {
        assert_eq!(
            events(b"id: 1\nid: a\0b\ndata: x\n\n"),
            [SseEvent { event: None, data: "x".into(), id: Some("1".into()) }]
        );
    }

    #[test]
    fn a_byte_order_mark_is_dropped_at_the_very_start_only() {
        assert_eq!(data(b"\xef\xbb\xbfdata: a\n\n"), ["a"]);
        assert_eq!(data(b"\xef\xbb\xbf\n\xef\xbb\xbfdata: a\n\ndata: \xef\xbb\xbfb\n\n"), ["\u{feff}b"]);
        assert_eq!(data(b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n"), ["b"]);
    }

    #[test]
    fn a_frame_cut_inside_a_character_is_joined() {
        let body = "data: grüße 🦙 日本\n\n".as_bytes();
        for at in 0..=body.len() {
            let (left, right) = body.split_at(at);
            let expected = SseEvent { data: "grüße 🦙 日本".into(), ..SseEvent::default() };
            assert_eq!(cut(&Framing::Sse, &[left, right]), [Frame::Sse(expected)], "cut at {at}");
        }
    }

    #[test]
    fn invalid_utf8_becomes_the_replacement_character() {
        assert_eq!(data(b"data: a\xffb\n\ndata: \xf0\x9f\xa6\ndata: \xc3\n\n"), ["a\u{fffd}b", "\u{fffd}\n\u{fffd}"]);
        assert_eq!(events(b"event: \xff\nid: \xfe\ndata:x\n\n")[0].event.as_deref(), Some("\u{fffd}"));
    }

    #[test]
    fn the_end_of_the_body_closes_an_event_that_has_data() {
        assert_eq!(data(b"data: a\n\ndata: b\n"), ["a", "b"]);
        assert_eq!(data(b"data: a\n\ndata: [DONE]"), ["a", "[DONE]"]);
        assert_eq!(data(b"data: a\r\n\r\ndata: b\r"), ["a", "b"]);
        assert_eq!(data(b"data: a\n\nevent: x\nid: 1\n: comment"), ["a"]);
        assert_eq!(data(b""), [""; 0]);
    }

    #[test]
    fn a_line_as_long_as_the_limit_passes_and_one_byte_more_does_not() {
        let line = b"data: 0123456789";
        let body = [b"data: a\n\n".as_slice(), line, b"\n\n"].concat();
        let (frames, end) = cut_with(&Framing::Sse, small(line.len()), &[&body]);
        assert_eq!((frames.len(), end), (2, Ok(())));
        let (frames, end) = cut_with(&Framing::Sse, small(line.len() - 1), &[&body]);
        assert_eq!(frames.len(), 1);
        let error = end.unwrap_err();
        assert_eq!(error, FramingError::TooLarge { what: "the line", offset: 9, limit: 15 });
        assert_eq!(
            error.to_string(),
            "the line that begins at byte 9 of the answer is larger than the limit of 15 bytes"
        );
    }

    #[test]
    fn a_line_that_never_ends_is_refused_as_soon_as_it_is_too_long() {
        let mut frames = Vec::new();
        let mut framer = Framer::new(&Framing::Sse, small(100)).unwrap();
        for _ in 0..100 {
            framer.push(b"x", &mut frames).unwrap();
        }
        let expected = Err(FramingError::TooLarge { what: "the line", offset: 0, limit: 100 });
        assert_eq!(framer.push(b"x", &mut frames), expected);
        assert_eq!(framer.push(b"\n\n", &mut frames), expected);
        assert_eq!(framer.finish(&mut frames), expected);
        assert_eq!(frames, []);
    }

    #[test]
    fn many_data_lines_together_have_the_limit_of_one() {
        // 8 lines of 9 bytes and the 7 line feeds that join them.
        let body = [b": x\n".as_slice(), &b"data:123456789\n".repeat(8), b"\n"].concat();
        assert_eq!(cut_with(&Framing::Sse, small(79), &[&body]).1, Ok(()));
        let (_, end) = cut_with(&Framing::Sse, small(78), &[&body]);
        assert_eq!(end, Err(FramingError::TooLarge { what: "the data of the event", offset: 4, limit: 78 }));
        let empty = b"data\n".repeat(100);
        assert!(cut_with(&Framing::Sse, small(98), &[&empty]).1.is_err());
        assert!(cut_with(&Framing::Sse, small(99), &[&empty]).1.is_ok());
    }

    #[test]
    fn each_event_has_the_limit_for_itself() {
        let body = b"data:12345678\ndata:12345678\n\n".repeat(100);
        let (frames, end) = cut_with(&Framing::Sse, small(17), &[&body]);
        assert_eq!((frames.len(), end), (100, Ok(())));
        assert!(cut_with(&Framing::Sse, small(16), &[&body]).1.is_err());
    }

    #[test]
    fn an_offset_counts_both_bytes_of_a_crlf() {
        let expected = Err(FramingError::TooLarge { what: "the line", offset: 13, limit: 7 });
        let pieces: [&[u8]; 4] = [b"data: a\r", b"\n\r", b"\n:\r", b"0123456789"];
        assert_eq!(cut_with(&Framing::Sse, small(7), &[&pieces.concat()]).1, expected);
        assert_eq!(cut_with(&Framing::Sse, small(7), &pieces).1, expected);
    }

    #[test]
    fn any_number_of_events_and_comments_passes() {
        let body = b": keep-alive\n\ndata: 1234567890\n\n".repeat(1000);
        let (frames, end) = cut_with(&Framing::Sse, small(16), &[&body]);
        assert_eq!((frames.len(), end), (1000, Ok(())));
    }
}

mod ndjson {
    use super::*;

    fn lines(body: &[u8]) -> Vec<String> {
        let whole = cut(&Framing::Ndjson, &[body]);
        let bytes: Vec<&[u8]> = body.chunks(1).collect();
        assert_eq!(cut(&Framing::Ndjson, &bytes), whole, "byte by byte");
        let line = |frame| match frame {
            Frame::Line(line) => line,
            other => panic!("not a line: {other:?}"),
        };
        whole.into_iter().map(line).collect()
    }

    #[test]
    fn each_line_is_a_frame_without_its_line_end() {
        assert_eq!(lines(b"{\"a\":1}\n{\"a\":2}\r\n"), ["{\"a\":1}", "{\"a\":2}"]);
    }

    #[test]
    fn blank_lines_are_dropped() {
        assert_eq!(lines(b"\n\r\n \t\n1\n\n\n2\n \r\n"), ["1", "2"]);
    }

    #[test]
    fn a_lone_cr_ends_no_line() {
        assert_eq!(lines(b"1\r2\n3\r\r\n"), ["1\r2", "3\r"]);
    }

    #[test]
    fn a_last_line_without_a_line_feed_is_handed_out() {
        assert_eq!(lines(b"1\n{\"done\":true}"), ["1", "{\"done\":true}"]);
        assert_eq!(lines(b"1\n2\r"), ["1", "2"]);
        assert_eq!(lines(b"1\n  "), ["1"]);
        assert_eq!(lines(b""), [""; 0]);
    }

    #[test]
    fn a_byte_order_mark_is_dropped_and_invalid_utf8_is_replaced() {
        assert_eq!(lines(b"\xef\xbb\xbf1\n\xef\xbb\xbf2\n\xff3"), ["1", "\u{feff}2", "\u{fffd}3"]);
    }

    #[test]
    fn a_line_above_the_limit_is_refused() {
        assert_eq!(cut_with(&Framing::Ndjson, small(5), &[b"12345\n12345"]).1, Ok(()));
        let (frames, end) = cut_with(&Framing::Ndjson, small(5), &[b"12345\n12", b"3456"]);
        assert_eq!(frames, [Frame::Line("12345".into())]);
        assert_eq!(end, Err(FramingError::TooLarge { what: "the line", offset: 6, limit: 5 }));
    }
}

mod whole_and_raw {
    use super::*;

    #[test]
    fn a_whole_body_is_one_frame_even_when_it_is_empty() {
        assert_eq!(cut(&Framing::Whole, &[b"{\"a\"", b"", b":1}"]), [Frame::Bytes(b"{\"a\":1}".to_vec())]);
        assert_eq!(cut(&Framing::Whole, &[]), [Frame::Bytes(Vec::new())]);
    }

    #[test]
    fn a_whole_body_has_a_limit_of_its_own() {
        let limits = Limits { max_frame_bytes: 1, max_body_bytes: 10 };
        assert_eq!(cut_with(&Framing::Whole, limits, &[b"12345", b"67890"]).1, Ok(()));
        let (frames, end) = cut_with(&Framing::Whole, limits, &[b"12345", b"678901"]);
        assert_eq!(frames, []);
        assert_eq!(end, Err(FramingError::TooLarge { what: "the body", offset: 0, limit: 10 }));
    }

    #[test]
    fn raw_hands_on_each_piece() {
        assert_eq!(
            cut(&Framing::Raw, &[b"ab", b"", b"c"]),
            [Frame::Bytes(b"ab".to_vec()), Frame::Bytes(b"c".to_vec())]
        );
        assert_eq!(cut(&Framing::Raw, &[]), []);
    }
}

#[test]
fn a_framing_of_another_name_is_refused_by_name() {
    let error = Framer::new(&Framing::Other("cbor-seq".into()), Limits::default()).unwrap_err();
    assert_eq!(error, FramingError::Unknown("cbor-seq".into()));
    assert_eq!(
        error.to_string(),
        "unknown framing \"cbor-seq\": known are whole, sse, ndjson, aws-eventstream and raw"
    );
}

#[test]
fn the_default_limits_are_the_documented_ones() {
    assert_eq!(Limits::default(), Limits { max_frame_bytes: 16_777_216, max_body_bytes: 33_554_432 });
}

#[test]
fn a_framer_is_for_one_answer() {
    for framing in [Framing::Whole, Framing::Sse, Framing::Ndjson, Framing::AwsEventstream, Framing::Raw] {
        let mut frames = Vec::new();
        let mut framer = Framer::new(&framing, Limits::default()).unwrap();
        framer.finish(&mut frames).unwrap();
        frames.clear();
        assert_eq!(framer.push(b"x", &mut frames), Err(FramingError::Finished));
        assert_eq!(framer.finish(&mut frames), Err(FramingError::Finished));
        assert_eq!(frames, []);
    }
}
