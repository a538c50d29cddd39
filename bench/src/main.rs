//! The parts of the overhead benchmark that are not a standard tool: `bench/run` drives them.
#![allow(clippy::print_stdout)]

mod client;
mod mock;
mod proxy;

use std::net::SocketAddr;

use anyhow::Result;
use clap::Parser;

/// Parts of the benchmark; `bench/run` drives them.
#[derive(Parser)]
enum Command {
    /// An OpenAI-shaped upstream that costs next to nothing. Streams send `?chunks=N&pace_us=N`'s defaults: 100, 0.
    Mock {
        #[arg(long)]
        listen: SocketAddr,
        /// Between two chunks of a stream, in microseconds; 0 sends them as fast as they are taken.
        #[arg(long, default_value_t = 0)]
        pace_us: u64,
        /// Chunks of one stream.
        #[arg(long, default_value_t = 100)]
        chunks: u32,
        /// Streams send their first chunk and then nothing.
        #[arg(long)]
        hold: bool,
    },
    /// A plain native reverse proxy: the floor for anything that passes HTTP on.
    Proxy {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        upstream: SocketAddr,
    },
    /// Requests at a fixed rate (open loop); prints latencies in microseconds.
    Rate {
        #[arg(long)]
        url: String,
        #[arg(long)]
        body: std::path::PathBuf,
        /// Requests per second.
        #[arg(long, default_value_t = 200)]
        rate: u64,
        #[arg(long, default_value_t = 5)]
        seconds: u64,
    },
    /// Keeps so many streams open until killed; prints `open` when each has sent its first byte.
    Hold {
        #[arg(long)]
        url: String,
        #[arg(long)]
        body: std::path::PathBuf,
        #[arg(long, default_value_t = 1000)]
        streams: usize,
    },
    /// So many streams at once, each read to its end; prints the time that all took, and the chunks.
    Streams {
        #[arg(long)]
        url: String,
        #[arg(long)]
        body: std::path::PathBuf,
        #[arg(long, default_value_t = 20)]
        streams: usize,
        /// Rounds of all streams.
        #[arg(long, default_value_t = 10)]
        rounds: usize,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    match Command::parse() {
        Command::Mock { listen, pace_us, chunks, hold } => mock::serve(listen, pace_us, chunks, hold).await,
        Command::Proxy { listen, upstream } => proxy::serve(listen, upstream).await,
        Command::Rate { url, body, rate, seconds } => client::rate(&url, std::fs::read(body)?, rate, seconds).await,
        Command::Hold { url, body, streams } => client::hold(&url, std::fs::read(body)?, streams).await,
        Command::Streams { url, body, streams, rounds } => {
            client::streams(&url, std::fs::read(body)?, streams, rounds).await
        }
    }
}
