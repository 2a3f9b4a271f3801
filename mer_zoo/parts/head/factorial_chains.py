"""Two kinds of chains that meet in every utterance: each speaker's emotion, and a hidden state that all share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mer_zoo.batch.index import Layout

PACE = 3.0  # by how much faster than prototypes the few numbers of the chains are learned


class FactorialChains(nn.Module):
    r"""Follow what each speaker feels and a hidden state of the dialogue, from both ends, and judge by both.

    A factorial hidden Markov model (Ghahramani and Jordan 1997). A speaker's emotion $y$ is kept from one of their own
    turns $a$ to the next, caught from whoever else spoke last, $b$, or comes anew; a hidden state $z$, which imitates
    an emotion, tends to last through the dialogue, whoever speaks. With prototypes $\mu$ of the emotions and features
    scaled by $\tau$,

    $$p(x_i \mid y, z) \propto \textstyle\prod_d \tau_d \cdot
        \exp\big(-\tfrac12 \lVert \tau \odot x_i - \mu_y - \delta\mu_z \rVert^2\big),\qquad
      P(z \mid z') = \beta\,[z = z'] + \tfrac{1-\beta}{E},$$
    $$P(y \mid y_a, y_b) = \alpha\,[y = y_a] + \kappa\,[y = y_b] + \tfrac{1-\alpha-\kappa}{E},$$
    $$\mathrm{logit}_i(y) = \log\textstyle\sum_z p(x_i \mid y, z)\,c_i(y, z),\qquad
      c_i(y, z) \propto \pi(y)\,f_i(y, z)\,b_i(y, z)\textstyle\prod_{r \ne s(i)} g_{ir}(z)$$

    where $f_i$ and $b_i$ are what the utterances before and after $i$ say (`follow`), $g_{ir}$ is how well both agree,
    were $z$ so, on what another speaker $r$ feels, and $\pi$ is a prior. Exact if $z$ never changes and nothing is
    caught. A logit is the log-density of an utterance's features and emotion together, given the rest of the dialogue;
    the loss `joint` learns from both. Gradients reach $\mu, \tau, \delta$ through an utterance's own features only, not
    through what it tells others, as in a step of expectation-maximisation.

    Inputs:
        x: float `[N, width]`, features of about unit scale; layout: who speaks where.
    Outputs:
        logits, float `[N, classes]`.

    Args:
        width: width of x (a fact).
        classes: number of emotions (a fact).
        speakers: most speakers of a dialogue; any beyond share the last one's place (a fact).
        stay: at the start of training, log-odds of keeping an emotion against catching one, or one anew; and of a
            hidden state's lasting.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> FactorialChains(6, 4, 3)(batch.features["text"], batch.layout).shape
        torch.Size([10, 4])
    """

    def __init__(self, width: int, classes: int, speakers: int, *, stay: float = 1.5) -> None:
        super().__init__()
        self.speakers = speakers
        self.prototypes = nn.Parameter(torch.randn(classes, width) * 0.05)
        self.log_scale = nn.Parameter(torch.zeros(width))
        self.imitation = nn.Parameter(torch.tensor(0.5))
        self.prior = nn.Parameter(torch.zeros(classes))
        self.moves = nn.Parameter(torch.tensor([stay, 0.0, 0.0]) / PACE)  # kept, caught, anew
        self.lasts = nn.Parameter(torch.tensor(stay / PACE))

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """Follow the dialogue from both ends."""
        density = self._density(x).transpose(1, 2)  # [N, hidden, emotion]
        prior = self.prior.log_softmax(0)
        seen = (density.detach() + prior).flatten(1)
        seen = layout.pad(seen - seen.amax(1, keepdim=True)).exp().unflatten(-1, density.shape[1:])
        places = torch.arange(self.speakers, device=x.device)
        speaks = layout.speaker.clamp(max=self.speakers - 1).unsqueeze(1) == places
        speaks = layout.pad(speaks.to(x.dtype))  # [B, L, speakers]
        moves, lasts = self._rates()
        (before, after), (past, future) = follow(
            torch.stack([seen, seen.flip(1)]), torch.stack([speaks, speaks.flip(1)]), moves, lasts
        )
        after, future = after.flip(1), future.flip(1)
        agree = (moves[0] * (past * future).sum(-1) * seen.shape[-1] + 1 - moves[0]).log()  # [B, L, speakers, hidden]
        others = (agree * (1 - speaks).unsqueeze(-1)).sum(-2).unsqueeze(-1)
        told = layout.unpad((before.log() + after.log() + others + prior).flatten(2)).log_softmax(-1)
        return (density + told.unflatten(-1, density.shape[1:])).logsumexp(1)

    def _rates(self) -> tuple[Tensor, Tensor]:
        """Return $\\alpha, \\kappa$ and what comes anew, and $\\beta$."""
        return (PACE * self.moves).softmax(0), (PACE * self.lasts).sigmoid()

    def _density(self, x: Tensor) -> Tensor:
        """Return $\\log p(x \\mid y, z)$ up to a constant, `[N, emotion, hidden]`."""
        x, means, strength = x * self.log_scale.exp(), self.prototypes, self.imitation
        product, gram = x @ means.t(), means @ means.t()
        square = gram.diagonal()
        alone = self.log_scale.sum() - 0.5 * (x * x).sum(-1, keepdim=True) + product - 0.5 * square
        imitated = strength * (product - 0.5 * strength * square)
        return alone.unsqueeze(-1) + imitated.unsqueeze(-2) - strength * gram


def follow(seen: Tensor, speaks: Tensor, moves: Tensor, lasts: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return what the utterances before each one say of its emotion and of the hidden state.

    For every speaker $s$ a table $q_s(z, y)$: the probability of the hidden state and of this speaker's emotion. When
    $s$ speaks, $o$ being whoever else spoke last and $w(z) = \sum_y q_s(z, y)$,

    $$q_r \leftarrow \beta\,q_r + \tfrac{1-\beta}{E}\textstyle\sum_z q_r\;(\text{all } r),\qquad
      f = \alpha\,q_s + \kappa\,q_o + \tfrac{1-\alpha-\kappa}{E}\,w,\qquad
      q_s \leftarrow f\,p(x \mid y, z) \text{, normalised}$$

    and the tables of all others are scaled to the new $w$. Speakers are taken to be independent given the hidden state.

    Args:
        seen: $p(x \mid y, z)$ up to a factor, float `[..., L, hidden, emotion]`.
        speaks: one-hot of who speaks, float `[..., L, speakers]`, zeros where nobody does.
        moves: $\alpha$, $\kappa$ and the rest, float `[3]`; lasts: $\beta$.

    Returns:
        $f$ at every place, float `[..., L, hidden, emotion]`, and what every speaker then feels, were the hidden
        state so: $q_r / w$, float `[..., L, speakers, hidden, emotion]`.

    Example:
        >>> seen = torch.tensor([[[0.0, 9.0], [0.0, 9.0]], [[1.0, 1.0], [1.0, 1.0]]])
        >>> both, _ = follow(seen, torch.ones(2, 1), torch.tensor([0.8, 0.0, 0.2]), torch.tensor(0.5))
        >>> [round(p, 2) for p in both[1].sum(0).tolist()]
        [0.1, 0.9]
    """
    states = seen.shape[-1]
    kept, caught, anew = moves.unbind()
    even = torch.full_like(seen[..., 0, :, :], 1 / states**2)
    tables = even.unsqueeze(-3).expand(*even.shape[:-2], speaks.shape[-1], states, states)
    latest = former = torch.zeros_like(speaks[..., 0, :])  # who spoke last, and who else did
    found, felt = [], []
    for evidence, who in zip(seen.unbind(-3), speaks.unbind(-2), strict=True):
        same, here = (who * latest).sum(-1, keepdim=True), who.sum(-1, keepdim=True)
        former = here * (same * former + (1 - same) * latest) + (1 - here) * former
        latest = here * who + (1 - here) * latest
        here, nobody = here[..., None], 1 - former.sum(-1)[..., None, None]
        tables = lasts * tables + (1 - lasts) / states * tables.sum(-2, keepdim=True)
        own = (who[..., None, None] * tables).sum(-3) + (1 - here) * even
        share = own.sum(-1, keepdim=True)
        felt.append(tables / tables.sum(-1, keepdim=True))
        other = (former[..., None, None] * tables).sum(-3) + nobody / states * share
        told = kept * own + caught * other + anew / states * share
        found.append(told.clamp(min=torch.finfo(told.dtype).tiny))
        judged = told * evidence
        judged = judged / judged.sum((-2, -1), keepdim=True)
        others = tables * (judged.sum(-1, keepdim=True) / share).unsqueeze(-3)
        spoken = torch.where(who[..., None, None] > 0, judged.unsqueeze(-3), others)
        tables = torch.where(here.unsqueeze(-3) > 0, spoken, tables)
    return torch.stack(found, -3), torch.stack(felt, -4)
