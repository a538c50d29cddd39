//! What each built-in adapter costs on this machine, as a component and natively: `cargo run --release -p witgate-host
//! --example adapters`.
//!
//! What is measured, and how, stands in `crates/adapters/examples/native`, which needs no runtime.
#![allow(clippy::print_stdout)]

#[allow(dead_code)]
#[path = "../../crates/adapters/examples/native/cost.rs"]
mod cost;

use std::sync::Arc;

use cost::{Failure, median};
use witgate_adapters::bedrock::Bedrock;
use witgate_adapters::sagemaker::SageMaker;
use witgate_adapters::{Anthropic, LlamaCpp, Ollama, OpenAi};
use witgate_config::Config;
use witgate_gateway::Adapter as _;
use witgate_host::Host;
use witgate_model::Adapter;

fn native<A: Adapter>(name: &str, settings: &str, host: &Host) -> Result<(), Failure> {
    let adapters = host.adapters();
    let component = &adapters.iter().find(|adapter| adapter.reference.as_str() == name).ok_or("not loaded")?.component;
    let refused = |error: witgate_model::Error| Failure::from(error.message);
    for (what, request) in cost::requests() {
        let alone = cost::encoded::<A>(settings, &request)?;
        let request = Arc::new(request);
        let mut session = component.session()?;
        let call = median(|| session.encode(settings, &request)?.map_err(refused))?;
        println!("{name:<10} encode {what:<7} native {alone:>9.2} us   component {call:>9.2} us");
    }
    let stream = cost::stream(name, true);
    let (copied, floor, framed) = (stream.copied()?, stream.floor()?, stream.framed()?);
    let alone = stream.decoded::<A>(settings)?;
    let call = stream.fed(|| {
        let mut session = component.session()?;
        session.start(settings, None, stream.head.clone())?;
        Ok(move |frames| session.feed(frames).map(drop).map_err(Failure::from))
    })?;
    let chunk = |megabyte: f64| megabyte * stream.chunk as f64 / 1e6;
    println!(
        "{name:<10} decode a chunk of {} bytes: native {:.3} us, component {:.3} us; of a MB: copied {copied:.0} us, floor \
         {floor:.0} us, framed {framed:.0} us ({:.2} x), decoded {alone:.0} us ({:.2} x), by component {call:.0} us ({:.2} x)",
        stream.chunk,
        chunk(alone),
        chunk(call),
        framed / floor,
        alone / floor,
        call / floor,
    );
    Ok(())
}

fn main() -> Result<(), Failure> {
    let config = Config::from_toml("[providers.stub]\nadapter = \"stub\"", "adapters.toml", &|_| None)?;
    let host = Host::builder(config).all_adapters().build()?;
    native::<OpenAi>("openai", "{}", &host)?;
    native::<LlamaCpp>("llama-cpp", "{}", &host)?;
    native::<Anthropic>("anthropic", "{}", &host)?;
    native::<Ollama>("ollama", "{}", &host)?;
    native::<Bedrock>("bedrock", r#"{"region":"us-east-1","api":"converse"}"#, &host)?;
    native::<SageMaker>("sagemaker", r#"{"region":"us-east-1","codec":"vllm"}"#, &host)?;
    Ok(())
}
