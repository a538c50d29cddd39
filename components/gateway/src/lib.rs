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

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use wit_bindgen::spawn_local;
use witgate_config::Config;
use witgate_gateway::{Gateway, Ports};

use bindings::wasi::http::types::{ErrorCode, Request, Response};

#[allow(missing_docs, clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        path: ["../../wit/adapter", "../../wit/normaliser", "../../wit/policy", "wit"],
        world: "witgate:gateway/gateway",
        with: {
            "witgate:adapter/types@0.1.0": witgate_model::types,
            "witgate:normaliser/types@0.1.0": witgate_model::normaliser,
            "witgate:policy/types@0.1.0": witgate_model::policy,
        },
        generate_all,
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

/// How often jobs are looked for while a client may wait for one.
const JOBS_LOOK: Duration = Duration::from_secs(1);

/// Leaves work that goes on for as long as the runtime lets the instance live; what is not done then, a later request finds.
fn leave(shared: &Shared, ports: &Arc<ports::Wasi>, work: impl AsyncFnOnce(Arc<Gateway>, Arc<ports::Wasi>) + 'static) {
    let (gateway, ports) = (Arc::clone(&shared.gateway), Arc::clone(ports));
    spawn_local(async move { work(gateway, ports).await });
}

struct Shell;

impl bindings::exports::wasi::http::handler::Guest for Shell {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        match SHARED.with(Clone::clone) {
            Some(shared) => {
                // The gateway wants an `Arc`, for the host's sake; a component has one thread.
                #[allow(clippy::arc_with_non_send_sync)]
                let ports = Arc::new(ports::Wasi::new(Rc::clone(&shared)));
                let request = server::request(request);
                let leaves_work = witgate_gateway::leaves_work(&request);
                // Where another task works off jobs already, this one ends at once.
                let work_off = || leave(&shared, &ports, async |gateway, ports| gateway.work_off(&ports).await);
                let answering = shared.gateway.handle(&ports, request);
                let answer = if leaves_work {
                    // Its client may wait for a job.
                    let working = async {
                        loop {
                            let next = shared.gateway.next_job();
                            select(pin!(next), pin!(ports.sleep_until(ports.now() + JOBS_LOOK))).await;
                            work_off();
                        }
                    };
                    match select(pin!(answering), pin!(working)).await {
                        Either::Left((answer, _)) => answer,
                        Either::Right((never, _)) => never,
                    }
                } else {
                    answering.await
                };
                if shared.gateway.left_work() || leaves_work {
                    work_off();
                } else if shared.gateway.may_pass_by(ports.now()) {
                    leave(&shared, &ports, async |gateway, ports| gateway.pass_by(&ports).await);
                }
                server::respond(ports.timer(), answer)
            }
            None => server::misconfigured(),
        }
    }
}

bindings::export!(Shell with_types_in bindings);
