//! The receivers: the AMQP crate's, one for each partition.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use fe2o3_amqp::{Connection, Receiver, Session, link::receiver::CreditMode, sasl_profile::SaslProfile};
use fe2o3_amqp_types::{definitions::SenderSettleMode, messaging::Body, primitives::Value};
use tokio::{net::TcpStream, sync::Barrier, task::JoinSet};

use super::{Options, Outcome};

/// Where to read.
pub(super) struct Source<'a> {
    pub(super) address: SocketAddr,
    pub(super) profile: SaslProfile,
    /// Events of each partition.
    pub(super) each: usize,
    pub(super) options: &'a Options,
}

/// Events per second, from when all links are attached to the last event.
pub(super) async fn read(source: &Source<'_>, partitions: u32, connections: u32) -> Outcome<f64> {
    let barrier = Arc::new(Barrier::new(connections as usize + 1));
    let mut tasks = JoinSet::new();
    for connection in 0..connections {
        let mine: Vec<u32> =
            (0..partitions).filter(|partition| partition % connections == connection).collect();
        let (address, profile, each) = (source.address, source.profile.clone(), source.each);
        let (options, barrier) = (source.options.clone(), Arc::clone(&barrier));
        tasks.spawn(async move { of_connection(address, profile, mine, each, &options, &barrier).await });
    }
    barrier.wait().await;
    let start = Instant::now();
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok((source.each * partitions as usize) as f64 / start.elapsed().as_secs_f64())
}

async fn of_connection(
    address: SocketAddr,
    profile: SaslProfile,
    partitions: Vec<u32>,
    each: usize,
    options: &Options,
    barrier: &Barrier,
) -> Outcome {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut connection = Connection::builder()
        .container_id("bench")
        .max_frame_size(65_536_u32)
        .sasl_profile(profile)
        .open_with_stream(stream)
        .await?;
    let mut session = Session::builder().incoming_window(65_536).begin(&mut connection).await?;
    let mut receivers = Vec::new();
    for partition in partitions {
        let mode = if options.unsettled { SenderSettleMode::Unsettled } else { SenderSettleMode::Settled };
        let receiver = Receiver::builder()
            .name(format!("reader-{partition}"))
            .source(format!("messages/events/ConsumerGroups/$Default/Partitions/{partition}"))
            .sender_settle_mode(mode)
            .credit_mode(CreditMode::Manual)
            .attach(&mut session)
            .await?;
        receivers.push(receiver);
    }
    barrier.wait().await;
    let mut tasks = JoinSet::new();
    for receiver in receivers {
        tasks.spawn(of_partition(receiver, each, options.credit, options.unsettled));
    }
    // Kept to the end: what is still on its way to a link that is gone ends the session of the others.
    let mut finished = Vec::new();
    while let Some(task) = tasks.join_next().await {
        finished.push(task??);
    }
    // What was to be measured was read; the bare server closes as soon as the session ends.
    let _ = session.end().await;
    let _ = connection.close().await;
    Ok(())
}

async fn of_partition(
    mut receiver: Receiver,
    each: usize,
    credit: u32,
    unsettled: bool,
) -> Outcome<Receiver> {
    receiver.set_credit(credit).await?;
    let mut left = credit;
    for _ in 0..each {
        let delivery = receiver.recv::<Body<Value>>().await?;
        if unsettled {
            receiver.accept(&delivery).await?;
        }
        std::hint::black_box(delivery.into_message());
        left -= 1;
        if left <= credit / 2 {
            receiver.set_credit(credit).await?;
            left = credit;
        }
    }
    Ok(receiver)
}
