"""Ways to compute convolutions and linear layers on a GPU, a file each; `pcc.codegen.family` lists them.

Families count what a schedule executes (`DeviceWork`); what that costs, a profile says (`pcc.codegen.opencl.profiles`).
"""
