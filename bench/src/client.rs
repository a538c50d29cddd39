//! Clients that a standard load tool does not offer: open-loop latencies, streams kept open, streams counted.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;

type Http = Client<HttpConnector, Full<Bytes>>;

fn http() -> Http {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).build(connector)
}

async fn post(client: &Http, url: &str, body: Bytes) -> Result<Incoming> {
    let request = Request::post(url).header("content-type", "application/json").body(Full::new(body))?;
    let response = client.request(request).await?;
    ensure!(response.status() == 200, "{url} answers {}", response.status());
    Ok(response.into_body())
}

/// Requests at a fixed rate; latencies count from the moment when each was due.
pub async fn rate(url: &str, body: Vec<u8>, rate: u64, seconds: u64) -> Result<()> {
    let (client, body) = (http(), Bytes::from(body));
    let mut tasks = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_nanos(1_000_000_000 / rate));
    for _ in 0..rate * seconds {
        let due = ticks.tick().await.into_std();
        let (client, url, body) = (client.clone(), url.to_owned(), body.clone());
        tasks.push(tokio::spawn(async move {
            // The timer's own delay is not the server's.
            let start = Instant::now().max(due);
            post(&client, &url, body).await?.collect().await?;
            anyhow::Ok(start.elapsed())
        }));
    }
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.push(task.await??.as_micros());
    }
    latencies.sort_unstable();
    let at = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize];
    println!("{{\"p50_us\":{},\"p99_us\":{},\"n\":{}}}", at(0.5), at(0.99), latencies.len());
    Ok(())
}

/// Keeps streams open.
pub async fn hold(url: &str, body: Vec<u8>, streams: usize) -> Result<()> {
    let (client, body) = (http(), Bytes::from(body));
    let mut open = Vec::new();
    for _ in 0..streams {
        let mut stream = post(&client, url, body.clone()).await?;
        stream.frame().await.transpose()?;
        open.push(stream);
    }
    println!("open");
    std::future::pending().await
}

/// Reads streams to their end.
pub async fn streams(url: &str, body: Vec<u8>, streams: usize, rounds: usize) -> Result<()> {
    let (client, body) = (http(), Bytes::from(body));
    let start = Instant::now();
    let mut chunks = 0_usize;
    for _ in 0..rounds {
        let tasks: Vec<_> = (0..streams)
            .map(|_| {
                let (client, url, body) = (client.clone(), url.to_owned(), body.clone());
                tokio::spawn(async move {
                    let body = post(&client, &url, body).await?.collect().await?.to_bytes();
                    ensure!(body.ends_with(b"data: [DONE]\n\n"), "a stream without its end");
                    Ok(body.windows(6).filter(|window| *window == b"data: ").count())
                })
            })
            .collect();
        for task in tasks {
            chunks += task.await??;
        }
    }
    println!("{{\"seconds\":{},\"streams\":{},\"chunks\":{chunks}}}", start.elapsed().as_secs_f64(), streams * rounds);
    Ok(())
}
