"""serve on the command line: parses, calls the API, prints."""

from __future__ import annotations

import argparse

from hwsim.arguments import output_files, shapes
from hwsim.comparison.price_arguments import add_price_arguments, prices_of
from hwsim.files import write_whole

_TEXT = {
    "rate": ("300/s", "requests per second; without it, or as search, the highest that meets --slo is found"),
    "duration": ("60s", "length of a run at --rate, instead of --requests"),
    "pause": ("10ms", "of a client between an answer and its next request"),
    "warmup": ("5%%", "share of the first requests that are not counted (default 5 %% of arrivals at a rate)"),
    "slo": ("20ms", "latency objective, host work included"),
    "max-delay": ("2ms", "how long the oldest request waits for its batch to fill (default: not at all)"),
    "timeout": ("1s", "a request not begun by then is dropped"),
    "variation": ("5%%", "spread of the time of equal batches (gamma; 100%% is exponential)"),
    "before": ("2ms", "host work on each request before the machine (decoding, resizing)"),
    "after": ("20ms", "host work on each request after it (non-maximum suppression)"),
    "swap-bandwidth": ("12GB/s", "rate at which weights of networks that do not fit together are loaded"),
}
_NUMBERS = {
    "requests": "how many requests a run has (default 100000; single- and multi-stream 1024, offline 24576)",
    "samples": "inferences in each request (default 1; multi-stream 8)",
    "clients": "so many clients ask one after the other instead of by the clock",
    "max-batch": "most inferences in a batch (default: what the objective allows)",
    "queue": "requests a queue holds; one more is rejected",
    "concurrent": "batches that share a machine at once, as CUDA streams do (default 1)",
    "host-workers": "workers of each stage of host work (default: as many as it takes)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``serve``."""
    parser.add_argument("network", help="one network as for run, or several with shares: resnet50=70%%,bert_base=30%%")
    parser.add_argument(
        "--on", required=True, metavar="A,4xB,…", help="machines: targets as for run, several of one as 4xB"
    )
    parser.add_argument("--machines", default="1", metavar="N|search", help="copies of them; search finds the fewest")
    parser.add_argument(
        "--scenario", metavar="NAME", help="single-stream, multi-stream, server (default) or offline, as MLPerf"
    )
    parser.add_argument(
        "--arrivals", default="poisson", metavar="PATTERN",
        help="poisson, uniform, gamma:SPREAD or mmpp:PEAK,SHARE,BURST as mmpp:4,10%%,1s",
    )  # fmt: skip
    parser.add_argument(
        "--trace", metavar="FILE.csv", help="recorded requests: time_s, and samples, model where they differ"
    )
    for name, (example, what) in _TEXT.items():
        parser.add_argument(f"--{name}", metavar=example.replace("%%", "%"), help=what)
    parser.add_argument(
        "--percentile", type=float, help="per cent of requests --slo is to hold for (default as MLPerf)"
    )
    for name, what in _NUMBERS.items():
        parser.add_argument(f"--{name}", type=int, metavar="N", help=what)
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default 0)")
    parser.add_argument(
        "--between", default="pad", metavar="HOW", help="batches between those simulated: pad, interpolate or exact"
    )
    parser.add_argument(
        "--routing", default="least-loaded", metavar="RULE",
        help="shared, round-robin, least-loaded, shortest-expected or two-choices",
    )  # fmt: skip
    parser.add_argument(
        "--order", default="oldest", metavar="RULE", help="which network a machine serves next: oldest, resident"
    )
    tokens = parser.add_argument_group("tokens of a language model, in continuous batches")
    tokens.add_argument(
        "--prompt", metavar="512±50%", help="tokens of a prompt: a mean, and a spread where they differ"
    )
    tokens.add_argument("--output", metavar="128±50%", help="tokens of an answer")
    tokens.add_argument("--ttft", metavar="500ms", help="objective of the time to the first token")
    tokens.add_argument("--tpot", metavar="50ms", help="objective of the time for each token after it")
    tokens.add_argument("--reserve", default="paged", metavar="HOW", help="key/value memory: paged (default) or full")
    tokens.add_argument("--prefill-batch", type=int, default=1, metavar="N", help="prompts read together (default 1)")
    tokens.add_argument("--block", type=int, default=16, metavar="N", help="tokens of a block of memory (default 16)")
    parser.add_argument(
        "--pre", metavar="STAGES", default=(), help="host work before the network, as for run: decode,resize"
    )
    parser.add_argument("--post", metavar="STAGES", default=(), help="host work after it: dequantise,nms")
    parser.add_argument("--image", metavar="1280x720", default="1280x720", help="the frame as it arrives, for --pre")
    parser.add_argument("--stack", help="software, as for run")
    parser.add_argument(
        "--parallel", metavar="KIND", help="how GPUs of one machine (NAME*8) share the work: data, tensor"
    )
    parser.add_argument("--precision", help="as for run; default the network's own, or the nearest a machine has")
    parser.add_argument("--sparsity", help="as for run")
    parser.add_argument("--shapes", default="", metavar="S=384,…", help="values of further symbols")
    parser.add_argument(
        "--phase", choices=("prefill", "decode"), help="one phase of a language model as a plain network"
    )
    parser.add_argument("--context", type=int, help="tokens read (prefill) or kept (decode)")
    add_price_arguments(parser)
    parser.add_argument(
        "--json", metavar="FILE", help="write everything but single requests as JSON (- for standard output)"
    )
    parser.add_argument("--csv", metavar="FILE", help="write the answer as one row of CSV (- for standard output)")
    parser.add_argument(
        "--requests-csv", metavar="FILE", help="write every request as a row of CSV (- for standard output)"
    )


def main(args: argparse.Namespace) -> int:
    """Serve and print; files that cannot be written are refused first."""
    output_files(args.json, args.csv, args.requests_csv)
    from hwsim.serving.api import serve

    plain = ("scenario", "rate", "arrivals", "trace", "requests", "duration", "samples", "clients", "seed", "warmup", "slo",
             "percentile", "machines", "max_batch", "between", "routing", "order", "queue", "timeout", "host_workers",
             "swap_bandwidth", "precision", "phase", "context", "sparsity", "prompt", "output", "ttft", "tpot", "reserve",
             "prefill_batch", "block",
             "pre", "post", "image", "stack", "parallel")  # fmt: skip
    zero = ("pause", "max_delay", "variation", "before", "after")
    given = {name: getattr(args, name) for name in plain}
    given |= {name: getattr(args, name) for name in (*zero, "concurrent") if getattr(args, name) is not None}
    serving = serve(args.network, args.on, shapes=shapes(args.shapes), prices=prices_of(args), progress=True, **given)
    renders = ((args.json, serving.to_json), (args.csv, serving.to_csv), (args.requests_csv, serving.requests_csv))
    for path, render in renders:
        if path == "-":
            print(render().rstrip("\n"))
        elif path is not None:
            write_whole(path, render().rstrip("\n") + "\n")
    paths = [path for path, _ in renders if path is not None]
    if "-" in paths:
        return 0
    print(serving.text())
    for path in paths:
        print(f"wrote {path}")
    return 0
