//! What each built-in adapter costs on this machine, natively: `cargo run --release -p witgate-adapters --example native`,
//! with names of adapters behind `--` only those.
//!
//! Medians on one thread. Encode: a chat of so many bytes; "image" is a chat with a picture of 1 MB in base64. Decode: a
//! stream of chunks of one word, in reads of 16 KiB. Beside it what it costs to copy its bytes once, and the floor: what
//! the contract has to be copied and allocated for these chunks by anybody (`bench/README.md` says why). "Each parsed" is a
//! stream in which no chunk is written as the one before. Decoding comes first, so that it has a fresh heap.
#![allow(clippy::print_stdout)]

mod cost;

use cost::Failure;
use witgate_adapters::bedrock::Bedrock;
use witgate_adapters::sagemaker::SageMaker;
use witgate_adapters::{Anthropic, LlamaCpp, Ollama, OpenAi};
use witgate_model::Adapter;

fn native<A: Adapter>(name: &str, settings: &str) -> Result<(), Failure> {
    if std::env::args().len() > 1 && !std::env::args().any(|argument| argument == name) {
        return Ok(());
    }
    let (stream, unlike) = (cost::stream(name, true), cost::stream(name, false));
    stream.check::<A>(settings)?;
    unlike.check::<A>(settings)?;
    let (copied, floor, framed) = (stream.copied()?, stream.floor()?, stream.framed()?);
    let (decoded, parsed) = (stream.decoded::<A>(settings)?, unlike.decoded::<A>(settings)?);
    println!(
        "{name:<10} decode a chunk of {} bytes {:.3} us; of a MB: copied {copied:.0} us, floor {floor:.0} us, framed \
         {framed:.0} us ({:.2} x), decoded {decoded:.0} us ({:.2} x floor, {:.0} x copied), each parsed {parsed:.0} us \
         ({:.2} x)",
        stream.chunk,
        decoded * stream.chunk as f64 / 1e6,
        framed / floor,
        decoded / floor,
        decoded / copied,
        parsed / unlike.floor()?,
    );
    for (what, request) in cost::requests() {
        println!("{name:<10} encode {what:<7} {:>9.2} us", cost::encoded::<A>(settings, &request)?);
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    native::<OpenAi>("openai", "{}")?;
    native::<LlamaCpp>("llama-cpp", "{}")?;
    native::<Anthropic>("anthropic", "{}")?;
    native::<Ollama>("ollama", "{}")?;
    native::<Bedrock>("bedrock", r#"{"region":"us-east-1","api":"converse"}"#)?;
    native::<SageMaker>("sagemaker", r#"{"region":"us-east-1","codec":"vllm"}"#)
}
