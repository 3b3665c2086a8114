/* A device sends a measurement and follows it to its end. */
#include "example.h"

int main(void)
{
    /* Opening does not wait for the network. The outbox is a folder that survives this process. */
    whimbrel_device_options options = example_options();
    whimbrel_device *device;
    must("opening", whimbrel_device_open(&options, &device));

    whimbrel_property properties[] = {{"room", "attic"}};
    whimbrel_message message = text_message("{\"t\":21.5}");
    message.content_type = "application/json";
    message.content_encoding = "utf-8";
    message.properties = properties;
    message.property_count = 1;
    message.expires_in_ms = 3600000;

    /* When this returns, the message is on the disk: it is Whimbrel's job now. */
    whimbrel_receipt *receipt;
    must("sending", whimbrel_device_send(device, &message, WHIMBREL_FOREVER, NULL, &receipt));

    /* Nobody has to wait for the outcome; it can also be asked for later, by whimbrel_receipt_message_id(). */
    whimbrel_outcome *outcome;
    must("waiting for the outcome", whimbrel_receipt_outcome(receipt, 60000, NULL, &outcome));
    if (whimbrel_outcome_get_kind(outcome) != WHIMBREL_OUTCOME_DELIVERED)
        example_fail("the message was not delivered");
    printf("stored in partition %lld as number %lld\n", (long long)whimbrel_outcome_partition(outcome),
           (long long)whimbrel_outcome_sequence(outcome));

    whimbrel_outcome_free(&outcome);
    whimbrel_receipt_free(&receipt);
    must("closing", whimbrel_device_close(device, WHIMBREL_FOREVER, NULL));
    whimbrel_device_free(&device);
    return 0;
}
