//! The gateway as a component, for Spin: a shell over `witgate-gateway` whose ports are WASI 0.3,
//! the normaliser, and an adapter or a policy in each plain-named slot.
//!
//! One instance serves many requests, several at once; nothing of a request stays in it but the counters of
//! [`witgate_gateway::Gateway`]. The configuration is read when the instance serves its first request.

mod client;
mod components;
mod config;
mod policies;
mod ports;
mod server;
mod store;
mod timer;

use std::rc::Rc;
use std::sync::Arc;

use wasip3::http::types::{ErrorCode, Request, Response};
use witgate_config::Config;
use witgate_gateway::Gateway;

#[allow(missing_docs, clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        path: ["../../wit/adapter", "../../wit/normaliser", "../../wit/policy", "wit"],
        world: "witgate:gateway/gateway",
        with: {
            "witgate:adapter/types@0.1.0": witgate_model::types,
            "witgate:normaliser/types@0.1.0": witgate_model::normaliser,
            "witgate:policy/types@0.1.0": witgate_model::policy,
            "witgate:normaliser/dialects@0.1.0": generate,
            "wasi:config/store@0.2.0-draft-2024-09-27": generate,
            "wasi:keyvalue/store@0.2.0-draft2": generate,
            "wasi:keyvalue/atomics@0.2.0-draft2": generate,
        },
    });
}

/// What the requests of one instance share.
struct Shared {
    gateway: Arc<Gateway>,
    config: Arc<Config>,
    slots: components::Slots,
    policies: policies::Slots,
    state: store::Store,
}

thread_local! {
    /// The shared state; none where the configuration is wrong. A component has one thread.
    static SHARED: Option<Rc<Shared>> = config::load();
}

struct Shell;

impl wasip3::exports::http::handler::Guest for Shell {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        match SHARED.with(Clone::clone) {
            Some(shared) => {
                // The gateway wants an `Arc`, for the host's sake; a component has one thread.
                #[allow(clippy::arc_with_non_send_sync)]
                let ports = Arc::new(ports::Wasi::new(Rc::clone(&shared)));
                let request = server::request(request);
                let leaves_work = witgate_gateway::leaves_work(&request);
                let answer = shared.gateway.handle(&ports, request).await;
                if shared.gateway.left_work() || leaves_work {
                    // For as long as the runtime lets the instance live; what is not done then, a later request finds.
                    let (gateway, ports) = (Arc::clone(&shared.gateway), Arc::clone(&ports));
                    wasip3::spawn(async move { gateway.work_off(&ports).await });
                }
                server::respond(ports.timer(), answer)
            }
            None => server::misconfigured(),
        }
    }
}

wasip3::http::service::export!(Shell);
