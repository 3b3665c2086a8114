//! Commands received and settled by the device client, against a server that does what the test says.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod device_support;

use std::{net::SocketAddr, time::Duration};

use device_support::{Sent, Server, connection_string};
use whimbrel::{DeviceClient, DeviceOptions, device::Protocol};

/// Long enough that only a hang reaches it.
const LONG: Duration = Duration::from_secs(30);
const BOTH: [Protocol; 2] = [Protocol::Mqtt3, Protocol::Mqtt5];

fn options(address: SocketAddr, protocol: Protocol) -> DeviceOptions {
    DeviceOptions::from_connection_string(&connection_string())
        .unwrap()
        .server(format!("mqtt://{address}"))
        .protocol(protocol)
        .backoff(Duration::from_millis(1), Duration::from_millis(20))
        .close_deadline(LONG)
}

async fn open(address: SocketAddr, protocol: Protocol) -> DeviceClient {
    DeviceClient::open(options(address, protocol).outbox_in_memory()).await.unwrap()
}

#[tokio::test]
async fn a_command_is_received_and_completed() {
    for protocol in BOTH {
        let (server, address) = Server::start().await;
        let device = open(address, protocol).await;
        let inbox = device.inbox();
        let mut peer = server.accept().await;
        let hello = peer.hello().await;
        assert!(!hello.clean, "the hub is to keep the subscription");
        if protocol == Protocol::Mqtt5 {
            assert_eq!((hello.receive_maximum, hello.session_expiry), (Some(16), Some(172_800)));
        }
        peer.welcome().await;
        let filter = peer.granted().await;
        let expected = match protocol {
            Protocol::Mqtt3 => "devices/d1/messages/devicebound/#",
            _ => "$iothub/commands",
        };
        assert_eq!(filter, expected);

        let mut sent = Sent::new(7, "reboot");
        sent.message = sent.message.property("urgent", "yes");
        sent.delivery_count = 2;
        peer.command(9, &sent).await;
        let command = inbox.next().await.unwrap().unwrap();
        assert_eq!((&command.body()[..], command.message_id()), (&b"reboot"[..], Some("m-7")));
        assert_eq!(command.properties().get("urgent"), Some("yes"));
        if protocol == Protocol::Mqtt5 {
            assert_eq!((command.sequence(), command.delivery_count()), (Some(7), Some(2)));
            assert!(command.enqueued_at().is_some());
        } else {
            assert_eq!(
                (command.sequence(), command.enqueued_at(), command.delivery_count()),
                (None, None, None)
            );
        }
        command.complete().await.unwrap();
        assert_eq!(peer.settled().await, (9, 0, None));
        let (closed, ()) = tokio::join!(device.close(), peer.gone());
        closed.unwrap();
        assert!(inbox.next().await.unwrap().is_none());
    }
}
