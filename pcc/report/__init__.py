"""What pcc says about a network: tables, prices, pages. They are views of layer reports, manifests and dumps; nothing
is analysed anew."""
