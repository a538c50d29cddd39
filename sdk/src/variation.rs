//! An adapter that is another one but for something.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use serde_json::Value;
use witgate_model::{Adapter, Decoder, Description, Error, Event, Frame, HttpRequest, Request, ResponseHead};

/// The settings of a variation that has none of its own: takes anything.
pub type NoSettings = serde::de::IgnoredAny;

/// What differs between a backend and the one that [`Base`](Self::Base) is for. The type itself is the state of one
/// answer; [`Varied`] makes an adapter of it.
///
/// A request goes through [`request`](Self::request), the base's `encode` and [`http`](Self::http); an answer goes through
/// the base's decoder, and each of its events through [`event`](Self::event). Where the base refuses, so does the
/// variation, and it fails where the base does.
///
/// The base reads its own settings beside those of the variation, and passes its own context to its decoder.
pub trait Variation: Sized {
    /// What it is a variation of: [`OpenAi`](crate::OpenAi) (the endpoint ends in `/v1`) or another built-in adapter.
    type Base: Adapter;
    /// Its own settings; [`NoSettings`] where it has none. The gateway has checked them by [`SETTINGS`](Self::SETTINGS).
    type Settings: DeserializeOwned + Default;

    /// The adapter's name: letters a-z, digits and hyphens, at most 64.
    const ID: &'static str;
    /// Its version: `env!("CARGO_PKG_VERSION")`.
    const VERSION: &'static str;
    /// One sentence for people.
    const SUMMARY: &'static str;
    /// The JSON Schemas of its own settings, by name: `{"suffix": {"type": "string"}}`. They come to those of the base.
    const SETTINGS: &'static str = "{}";

    /// Whether the backend has this operation of the base's: `chat`, `completion`, `embedding`, `count-tokens`, `models`.
    /// A request for any other is refused.
    fn takes(operation: &str) -> bool {
        let _ = operation;
        true
    }

    /// Changes what else the base says that it is: capabilities, secrets, default endpoint.
    fn describe(description: &mut Description) {
        let _ = description;
    }

    /// Looks at a request, and changes it, before the base encodes it.
    ///
    /// # Errors
    /// What the backend cannot do: [`Error::unsupported`], with the field in the client's terms.
    fn request(settings: &Self::Settings, request: &mut Request) -> Result<(), Error> {
        let _ = (settings, request);
        Ok(())
    }

    /// Changes the HTTP request that the base made. The body of a probe is empty.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    fn http(settings: &Self::Settings, http: &mut HttpRequest) -> Result<(), Error> {
        let _ = (settings, http);
        Ok(())
    }

    /// The state for an answer that has begun.
    fn answer(settings: Self::Settings, head: &ResponseHead) -> Self;

    /// What becomes of an event of the base's. As it is called for one event after another, the answer cannot depend on
    /// where the network cut it; the events' order must stay that of the contract.
    fn event(&mut self, event: Event, out: &mut Vec<Event>) {
        out.push(event);
    }
}

/// The adapter that a [`Variation`] makes.
#[derive(Debug)]
pub struct Varied<V>(PhantomData<fn() -> V>);

impl<V> Default for Varied<V> {
    fn default() -> Self {
        Varied(PhantomData)
    }
}

/// The decoder of [`Varied`].
#[derive(Debug)]
pub struct VariedDecoder<V, D> {
    variation: V,
    base: D,
}

fn settings<V: Variation>(settings: &str) -> Result<V::Settings, Error> {
    if settings.is_empty() {
        return Ok(V::Settings::default());
    }
    serde_json::from_str(settings)
        .map_err(|error| Error::invalid("settings", format!("the provider's settings cannot be read: {error}")))
}

/// The base's schema with further properties; the text at fault where either is no object.
fn schema(base: &str, own: &str) -> String {
    let Ok(Value::Object(own_properties)) = serde_json::from_str(own) else { return own.to_owned() };
    let Ok(Value::Object(mut schema)) = serde_json::from_str(base) else { return base.to_owned() };
    if own_properties.is_empty() {
        return base.to_owned();
    }
    if let Value::Object(properties) = schema.entry("properties").or_insert_with(|| Value::Object(Default::default())) {
        properties.extend(own_properties);
    }
    Value::Object(schema).to_string()
}

impl<V: Variation> Adapter for Varied<V> {
    type Decoder = VariedDecoder<V, <V::Base as Adapter>::Decoder>;

    fn describe() -> Description {
        let mut description = V::Base::describe();
        description.id = V::ID.into();
        description.version = V::VERSION.into();
        description.summary = V::SUMMARY.into();
        description.operations.retain(|operation| V::takes(operation));
        description.settings_schema = schema(&description.settings_schema, V::SETTINGS);
        V::describe(&mut description);
        description
    }

    fn probe(settings: &str) -> Result<Option<HttpRequest>, Error> {
        let own = self::settings::<V>(settings)?;
        let mut probe = V::Base::probe(settings)?;
        if let Some(http) = &mut probe {
            V::http(&own, http)?;
        }
        Ok(probe)
    }

    fn encode(settings: &str, mut request: Request) -> Result<HttpRequest, Error> {
        let own = self::settings::<V>(settings)?;
        if !V::takes(request.input.operation()) {
            return Err(Error::no_operation(V::ID, &request.input));
        }
        V::request(&own, &mut request)?;
        let mut http = V::Base::encode(settings, request)?;
        V::http(&own, &mut http)?;
        Ok(http)
    }

    fn decoder(settings: &str, context: Option<String>, head: ResponseHead) -> Self::Decoder {
        // `encode` has read them.
        let own = self::settings::<V>(settings).unwrap_or_default();
        VariedDecoder { variation: V::answer(own, &head), base: V::Base::decoder(settings, context, head) }
    }
}

impl<V: Variation, D> VariedDecoder<V, D> {
    fn vary(&mut self, events: Vec<Event>) -> Vec<Event> {
        let mut out = Vec::with_capacity(events.len());
        for event in events {
            self.variation.event(event, &mut out);
        }
        out
    }
}

impl<V: Variation, D: Decoder> Decoder for VariedDecoder<V, D> {
    fn feed(&mut self, frames: Vec<Frame>) -> Vec<Event> {
        let events = self.base.feed(frames);
        self.vary(events)
    }

    fn finish(&mut self) -> Vec<Event> {
        let events = self.base.finish();
        self.vary(events)
    }
}

#[cfg(test)]
mod tests {
    use witgate_model::{ErrorKind, Input, Message, Role};

    use super::*;
    use crate::OpenAi;

    /// Settings that must have a number.
    #[derive(Default, serde::Deserialize)]
    struct Own {
        boost: u32,
    }

    struct Chatty;

    impl Variation for Chatty {
        type Base = OpenAi;
        type Settings = Own;
        const ID: &'static str = "chatty";
        const VERSION: &'static str = "1.2.3";
        const SUMMARY: &'static str = "Chats only.";
        const SETTINGS: &'static str = r#"{"boost": {"type": "integer"}}"#;

        fn takes(operation: &str) -> bool {
            operation == "chat"
        }

        fn http(settings: &Own, http: &mut HttpRequest) -> Result<(), Error> {
            http.headers.push(("x-boost".into(), settings.boost.to_string()));
            Ok(())
        }

        fn answer(_: Own, _: &ResponseHead) -> Self {
            Chatty
        }
    }

    #[test]
    fn a_variation_describes_itself_and_its_own_settings_beside_those_of_its_base() {
        let is = Varied::<Chatty>::describe();
        assert_eq!(
            (is.id.as_str(), is.version.as_str(), is.operations.as_slice()),
            ("chatty", "1.2.3", &["chat".to_owned()][..])
        );
        let schema: Value = serde_json::from_str(&is.settings_schema).unwrap();
        assert_eq!(schema["properties"]["boost"]["type"], "integer");
        assert_eq!(schema["properties"]["strict"]["type"], "boolean");
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(super::schema("{}", "{not json"), "{not json");
    }

    #[test]
    fn an_operation_that_a_variation_does_not_take_is_refused() {
        let request = Request::new("openai-models", "", Input::Models);
        let error = Varied::<Chatty>::encode(r#"{"boost":1}"#, request).unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Unsupported, "chatty has no operation `models`"));
    }

    #[test]
    fn a_probe_is_changed_as_requests_are_and_both_read_both_settings() {
        let settings = r#"{"boost":7,"headers":{"x-a":"b"}}"#;
        let probe = Varied::<Chatty>::probe(settings).unwrap().unwrap();
        let request = Request::chat("openai-chat", "m", vec![Message::text(Role::User, "Hi")]);
        let http = Varied::<Chatty>::encode(settings, request.clone()).unwrap();
        for made in [&probe, &http] {
            assert!(made.headers.contains(&("x-boost".into(), "7".into())), "{made:?}");
            assert!(made.headers.contains(&("x-a".into(), "b".into())), "{made:?}");
        }
        assert_eq!(Varied::<Chatty>::encode("{}", request).unwrap_err().param.as_deref(), Some("settings"));
    }
}
