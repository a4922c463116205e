"""Three steps of torch.optim.Adam."""
import torch


def make():
    w = torch.randn(37).requires_grad_()
    out = {"w0": w.detach().clone()}
    optimiser = torch.optim.Adam([w], lr=3e-3)
    for step in range(1, 4):
        w.grad = torch.randn(37) * 10.0 ** torch.randint(-5, 2, (37,))
        out[f"g{step}"] = w.grad.clone()
        optimiser.step()
        out[f"w{step}"] = w.detach().clone()
    state = optimiser.state[w]
    return out | {"m": state["exp_avg"], "v": state["exp_avg_sq"]}
