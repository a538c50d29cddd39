//! The example as a process: what it prints is asked, over a socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

struct Running {
    child: Child,
    address: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_custom-host"))
            .arg("127.0.0.1:0")
            .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("http://").unwrap_or_else(|| panic!("{line:?}")).to_owned();
        Running { child, address }
    }

    /// One exchange: status and body.
    fn ask(&self, head: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        let request = format!(
            "{head} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn chat(&self, body: Value) -> (u16, String) {
        self.ask("POST /llm/v1/chat/completions", &body.to_string())
    }
}

#[test]
fn the_server_has_a_page_of_its_own_and_a_gateway_with_its_policy_and_its_adapter() {
    let running = Running::start();
    assert_eq!(running.ask("GET /", ""), (200, "ask under /llm/v1".to_owned()));
    let hello = json!([{"role": "user", "content": "hello"}]);

    let (status, body) = running.chat(json!({"model": "any", "messages": hello}));
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "HELLO");

    let (status, body) = running.chat(json!({"model": "any", "messages": hello, "max_tokens": 1001}));
    assert_eq!(status, 400, "{body}");
    assert!(body.contains("at most 1000"), "{body}");

    let (status, body) = running.chat(json!({"model": "any", "messages": hello, "stream": true}));
    assert_eq!(status, 200);
    assert!(body.contains("\"HELLO\"") && body.contains("data: [DONE]"), "{body}");

    assert_eq!(running.ask("POST /v1/chat/completions", "{}").0, 404);
}

#[test]
fn the_example_is_under_80_lines() {
    assert!(include_str!("../src/main.rs").lines().count() < 80);
}
