/* An alert overtakes all the telemetry that waits. */
#include "example.h"

#define READINGS 1000

int main(void)
{
    whimbrel_device_options options = example_options();
    whimbrel_device *device;
    must("opening", whimbrel_device_open(&options, &device));

    /* While the hub is away, readings pile up. Then something happens. */
    static char texts[READINGS][12];
    static whimbrel_message readings[READINGS];
    for (int i = 0; i < READINGS; i++) {
        snprintf(texts[i], sizeof texts[i], "%d", i);
        readings[i] = text_message(texts[i]);
    }
    must("sending", whimbrel_device_send_many(device, readings, READINGS, WHIMBREL_FOREVER, NULL, NULL));
    whimbrel_property limit = {"limit", "95"};
    whimbrel_message alert = text_message("overheat");
    alert.lane = WHIMBREL_LANE_ALERT;
    alert.properties = &limit;
    alert.property_count = 1;
    whimbrel_receipt *receipt;
    must("sending the alert", whimbrel_device_send(device, &alert, WHIMBREL_FOREVER, NULL, &receipt));
    printf("%d readings wait, and behind them an alert\nwaiting for the hub\n", READINGS);
    fflush(stdout);

    whimbrel_outcome *outcome;
    must("waiting for the outcome", whimbrel_receipt_outcome(receipt, 60000, NULL, &outcome));
    if (whimbrel_outcome_get_kind(outcome) != WHIMBREL_OUTCOME_DELIVERED)
        example_fail("the alert was not delivered");
    puts("the alert is delivered");
    uint64_t left;
    must("flushing", whimbrel_device_flush(device, 60000, NULL, &left));
    if (left != 0)
        example_fail("readings are left");

    whimbrel_outcome_free(&outcome);
    whimbrel_receipt_free(&receipt);
    must("closing", whimbrel_device_close(device, WHIMBREL_FOREVER, NULL));
    whimbrel_device_free(&device);
    return 0;
}
