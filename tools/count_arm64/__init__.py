"""What arm64 code executes under QEMU, counted: networks and layers in pcc and in peers, and pcc's forms of a layer
beside each other."""
