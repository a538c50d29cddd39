//! An axum server of one's own with the gateway under `/llm`, an adapter and a policy of its own. See `docs/embed.md`.

use axum::{Router, routing::get};
use witgate_host::model::policy::{Context, Decision};
use witgate_host::model::*;
use witgate_host::{BuildError, Host, NativeAdapter, NativePolicy};

/// What `witgate.toml` is to the program `witgate`. Requests to `stub:` come back as they are, without any network.
const CONFIG: &str = r#"
server.policies = ["at-most"]
providers.shout = { adapter = "shout", endpoint = "stub:" }
models."*".target = "shout"
"#;

/// A policy: nobody asks for more than so many tokens.
struct AtMost(u64);

impl NativePolicy for AtMost {
    fn on_request(&self, _: &str, _: &Context, request: &Request) -> Result<Decision, Error> {
        match request.sampling.max_tokens {
            Some(asked) if asked > self.0 => Err(Error::invalid("max_tokens", format!("at most {}", self.0))),
            _ => Ok(Decision::default()),
        }
    }
}

/// An adapter: what the user said comes back in capitals.
struct Shout;

impl NativeAdapter for Shout {
    fn describe(&self) -> Description {
        let (id, version, settings_schema) = ("shout".into(), "1.0.0".into(), "{}".into());
        Description { id, version, settings_schema, operations: vec!["chat".into()], ..Description::default() }
    }

    fn encode(&self, _: &str, request: &Request) -> Result<HttpRequest, Error> {
        let Input::Chat(messages) = &request.input else {
            return Err(Error::no_operation("shout", &request.input));
        };
        let [.., Message { parts, .. }] = messages.as_slice() else { return Ok(HttpRequest::get(&[])) };
        let mut said = String::new();
        for part in parts {
            let Part::Text(text) = part else { return Err(Error::unsupported("messages", "text only")) };
            said.push_str(&text.text.to_uppercase());
        }
        Ok(HttpRequest::post_json(&["shout"], said))
    }

    fn decoder(&self, _: &str, _: Option<String>, _: ResponseHead) -> Box<dyn Decoder + Send> {
        Box::new(Heard(Vec::new()))
    }
}

struct Heard(Vec<u8>);

impl Decoder for Heard {
    fn feed(&mut self, frames: Vec<Frame>) -> Vec<Event> {
        self.0.extend(frames.into_iter().flat_map(|frame| if let Frame::Bytes(it) = frame { it } else { vec![] }));
        Vec::new()
    }

    fn finish(&mut self) -> Vec<Event> {
        let text = Event::text(0, String::from_utf8_lossy(&self.0));
        let (started, end) = (Event::Started(Started::default()), Event::finish(0, FinishReason::Stop, None));
        vec![started, Event::text_start(0, 0), text, Event::BlockStop(0), end, Event::Done]
    }
}

fn app() -> Result<Router, BuildError> {
    let host = Host::from_toml(CONFIG).adapter("shout", Shout).policy("at-most", AtMost(1000)).build()?;
    Ok(Router::new().route("/", get("ask under /llm/v1")).nest_service("/llm", host.service()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = tokio::net::TcpListener::bind(std::env::args().nth(1).unwrap_or("127.0.0.1:3000".into())).await?;
    eprintln!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app()?).await?)
}
