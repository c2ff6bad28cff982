"""What decides a run, as frozen dataclasses.

Each field's default is the paper's value where the paper states one; a comment names the unit or
the source.
"""
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class DataConfig:
    """Which images the network sees."""
    train: str = "data/train.h5"  # HDF5 dataset of the training images (hpclcae data ...)
    test: str = "data/test.h5"    # labelled HDF5 dataset for the tests of single neurons
    size: int = 200               # side of the square image, pixels
    channels: int = 3             # 1 grey, 3 colour
    mirror: bool = True           # show half of the images mirrored left to right
    keep: float = 0.25            # pixels that were read stay in memory, if those of all images
    #                               take at most this part of what the rank has to spare; 0: never
    crop: int = 0                 # move each image by up to so many pixels along both sides; what
    #                               comes in repeats its border


@dataclass(frozen=True)
class PreprocessConfig:
    """Contrast normalisation and local whitening.

    Fitted on the training set, kept in the checkpoint.
    """
    contrast: bool = True            # subtract each image's mean, divide by its standard deviation
    #                                  + floor
    contrast_floor: float = 8.0      # added to the standard deviation, grey levels of 255
    whitening: int = 11              # side of the local ZCA kernel, pixels, odd; 0: no whitening
    whitening_epsilon: float = 1.0   # added to every eigenvalue, in units of the mean eigenvalue
    whitening_images: int = 2000     # training images whose patches the kernel is fitted on
    rescale: bool = True             # divide each whitened image by its standard deviation


@dataclass(frozen=True)
class StageConfig:
    """One stage: filtering, L2 pooling, local contrast normalisation (paper, section 3)."""
    receptive_field: int = 18        # side of the filter window, input positions
    stride: int = 1                  # between neighbouring filter windows, input positions
    maps: int = 8                    # filters at every position
    pooling: int = 5                 # side of the pooling window, positions
    pooling_stride: int = 1          # between neighbouring pooling windows, positions
    epsilon: float = 0.01            # inside the square root of pooling [not stated in the paper]
    lcn: int = 5                     # side of the window of contrast normalisation; 0: none
    lcn_sigma: float = 1.0           # of its Gaussian, positions [not stated in the paper]
    lcn_floor: float = 0.01          # smallest divisor, c in the paper
    lcn_border: Literal["clip", "valid", "centre", "same"] = "clip"
    #                                  what is done where a window ends: layers/contrast_norm.py
    # how the pooled responses are conditioned for the stage above (model/conditioner.py)
    log: bool = False                # logarithm of every pooled response
    standardise: bool = False        # subtract each unit's mean over training images, divide by its
    #                                  standard deviation; then follows lcn, if any
    contrast: bool = False           # subtract each image's own mean, divide by its standard
    #                                  deviation: of the whole map, or of each window
    whiten: int = 0                  # directions of the map, or of each window, that are kept, all
    #                                  with the same variance; 0: no whitening
    whiten_by: Literal["variance", "pairs"] = "variance"  # those of largest variance, or those that
    #                                  are most alike in the two frames of a pair
    window: int = 0                  # side of windows that are conditioned each by itself and give
    #                                  `whiten` numbers each, positions; 0: the map as a whole
    window_stride: int = 1           # between neighbouring windows, positions
    weights: Literal["untied", "tied"] = "untied"       # decoder of its own, or the encoder
    # (with a classifier nothing is decoded, and there is none)
    #                                                     transposed
    encoder_norm: Literal["free", "unit"] = "free"      # what holds the scale: filters normalised
    #                                                     in the
    decoder_norm: Literal["free", "unit"] = "unit"      # forward pass (layers/unit_norm.py)
    sparsity: float = 0.1            # lambda
    sparsity_unit: Literal["absolute", "sigma"] = "absolute"  # sigma: times the standard deviation
    #                                  of one direction of a whitened input, sqrt(inputs / rank)
    weight: float = 1.0              # of this stage's term in the objective
    steps: int = 0                   # greedy: minibatches of this stage; 0: an equal share of what
    #                                  the others leave of train.steps
    batch: int = 0                   # greedy: images a minibatch of this stage; 0: train.batch
    rate: float = 0.0                # greedy: learning rate of this stage; 0: update.rate
    tile: int = 0                    # side of a kernel tile, positions; 0: chosen by a rule


MOST_STAGES = 100
MOST_CLASSES = 10 ** 7
SCHEDULES = ("constant", "halfway")  # named ones; any other is an expression (model/schedule.py)


@dataclass(frozen=True)
class UpdateConfig:
    """How a gradient changes the parameters."""
    rule: Literal["sgd", "momentum", "adagrad", "adam"] = "momentum"
    rate: float = 0.1                # learning rate; sgd, momentum: in units of 1/fan-in, as a
    #                                  filter's curvature grows with its inputs; adagrad, adam: in
    #                                  units of a typical weight, 1/sqrt(fan-in)
    momentum: float = 0.9            # momentum; adam: first moment
    second_moment: float = 0.99      # adam
    schedule: str = "halfway"        # constant; halfway: falls linearly to 0 over the second half;
    # or an expression of step (from 0 to steps - 1), steps and epoch that rate is multiplied with,
    # for instance "0.5 * (1 + cos(pi * step / steps))"
    clip: float = 0.0                # largest norm of the gradient of one filter; 0: none
    staleness_scaled: bool = False   # divide the rate by 1 + the updates that a gradient has missed
    #                                  (servers only)
    delay_compensation: float = 0.0  # lambda of DC-ASGD (Zheng et al. 2017); 0: none (servers only)


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""
    steps: int = 1000                # minibatches, of all stages together
    batch: int = 100                 # images a minibatch
    seed: int = 0                    # of initial weights and of the minibatch stream
    weights: str = ""                # run or checkpoint to begin with: its weights, preprocessing
    #                                  and conditioners; "": random weights
    dtype: Literal["float32", "float64"] = "float32"
    gradient: Literal["joint", "stopped", "greedy"] = "joint"  # see model/network.py
    checkpoint_every: int | Literal["auto"] = 200  # steps between checkpoints; one is always
    #                                  written at the end; auto: as often as pays, from what one
    #                                  costs and from mtbf (cluster/interval.py)
    mtbf: float = 24.0               # auto: hours between two failures of the job, whatever fails
    #                                  [assumed: a machine or a few that fail once a day; a job of
    #                                  1,000 processors: 8, of 16,000: 2 to 3]
    keep: int = 2                    # newest checkpoints to keep (never fewer than 2: one may turn
    #                                  out damaged)
    keep_every: int = 0              # also keep checkpoints of steps that this divides; 0: none
    restarts: int = 20               # times that hpclcae launch and the jobs of slurm/ start a job
    #                                  again that has failed, from its last checkpoint
    log_every: int = 10              # steps between lines of metrics
    condition_images: int = 20000    # training images that conditioners are fitted on, at most
    condition_every: int = 0         # joint, stopped: steps between two fits of the conditioners;
    #                                  0: fitted once, at the start
    cache: Literal["none", "auto", "memory", "disk"] = "none"  # greedy, and a classifier by itself:
    #                                  keep what finished stages answer to each training image
    #                                  (float16), in memory or in the run folder; auto: in memory if
    #                                  it fits, else computed anew each time


@dataclass(frozen=True)
class ClassifierConfig:
    """Categories told apart on the top stage, and how it is trained (hpclcae finetune).

    First the classifier alone learns, on features that stay as they are; then the whole network.
    """
    loss: Literal["none", "logistic", "softmax"] = "none"  # none: there is no classifier; logistic:
    #                                  one against all others (the paper's); see model/classifier.py
    classes: int = 0                 # categories; 0: those of data.train
    start: Literal["pretrained", "random"] = "pretrained"  # weights of the stages: those of
    #                                  train.weights, or random ones (the control)
    standardise: bool = True         # subtract each feature's mean over training images, divide by
    #                                  its standard deviation
    balance: bool = False            # weigh images by 1 / how frequent their category is
    l2: float = 1e-4                 # penalty: l2 / 2 times the sum of all squared weights
    steps: int = 500                 # minibatches of the classifier alone; those that are left of
    #                                  train.steps are of the whole network
    batch: int = 0                   # images a minibatch of the classifier alone; 0: train.batch
    rate: float = 0.0                # learning rate of the classifier alone; 0: update.rate
    per_class: int = 0               # training images of each category, chosen by train.seed; 0:
    #                                  all
    validation: float = 0.1          # share of the training images that is not trained on, but
    #                                  looked at with every train.checkpoint_every: the best
    #                                  checkpoint is kept
    patience: int = 0                # looks of the last phase without a better one after which
    #                                  training ends; 0: it never ends early
    parts: int = 1                   # cut the categories into so many parts, dealt to the columns
    #                                  of a grid, where one rank cannot hold all for its features


@dataclass(frozen=True)
class ParallelConfig:
    """How the work is spread over ranks (mpiexec, srun); it changes who computes, not what."""
    grid: str = "auto"               # blocks that share one network, ROWSxCOLUMNS; auto: see
    #                                  partition/cost.py
    servers: int = 0                 # ranks that hold the parameters; 0: every block updates its
    #                                  own
    replicas: int = 1                # copies of the network, each trains on its own portion of the
    #                                  images
    placement: Literal["beside", "apart"] = "beside"  # servers spread over the workers' nodes, or
    #                                                   on nodes of their own
    transport: Literal["auto", "rma", "messages"] = "auto"  # gradients written into the server's
    #                                  memory (MPI's remote memory access), or messages; auto: the
    #                                  first, if it works here
    window: Literal["allocate", "create"] = "allocate"  # that memory: MPI's, which ranks of a node
    #                                                     share, or NumPy's
    slots: int = 8                   # rma: gradients of chunks that may lie at a server, of each
    #                                  worker; in a surviving job: that it has not acknowledged
    copies: Literal[0, 1] = 0        # a surviving job (launch --survive): other servers that have a
    #                                  copy of every chunk; 0: a server that dies costs what came
    #                                  after the last checkpoint
    # who waits for whom
    consistency: Literal["asynchronous", "bounded", "synchronous"] = "asynchronous"
    staleness: int = 4               # bounded: pushes that a replica may be ahead of the slowest
    #                                  one
    backup: int = 0                  # synchronous: replicas that a push does not wait for; their
    #                                  gradients are dropped
    fetch_every: int = 1             # steps between fetches of the parameters
    push_every: int = 1              # steps whose gradients are summed before a push
    overlap: bool = True             # fetch while computing, so with parameters one fetch older;
    #                                  not if synchronous
    elastic: float = 0.0             # elastic averaging (Zhang et al. 2015): pull towards the
    #                                  servers' average; 0: none
    # low communication (DiLoCo, Douillard et al. 2023): fetch_every = push_every steps by itself,
    # then the way that a replica has made is a gradient for the servers' Nesterov momentum
    outer_rate: float = 0.0          # its learning rate (the paper's: 0.7); 0: none of this
    outer_momentum: float = 0.9
    quorum: int = 0                  # replicas without which there is no outer update; 0: all
    grace: float = 0.0               # seconds that a quorum waits for the others; who comes later
    #                                  counts in the next update
    warm_start: int = 0              # steps that the first replica makes before the others join
    log_events: bool = False         # servers write down who applied what against which version
    #                                  (hpclcae replay)

    @property
    def is_local(self) -> bool:
        """Whether a replica steps by itself between fetches, with an optimizer of its own."""
        return self.elastic > 0 or self.outer_rate > 0

    @property
    def waits(self) -> bool:
        """Whether a fetch may have to wait for what other replicas push."""
        return self.consistency != "asynchronous" or self.outer_rate > 0

    @property
    def lockstep(self) -> bool:
        """Whether all replicas make the same steps, and so the same bits in every run."""
        return self.servers > 0 and self.consistency == "synchronous" and not self.backup


@dataclass(frozen=True)
class Config:
    """Everything that decides a run."""
    data: DataConfig = field(default_factory=DataConfig)
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    stages: tuple[StageConfig, ...] = (StageConfig(), StageConfig(), StageConfig())
    update: UpdateConfig = field(default_factory=UpdateConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)

    @property
    def is_supervised(self) -> bool:
        """Whether there is a classifier on the top stage."""
        return self.classifier.loss != "none"


#: The sections that are one table each.
SECTIONS = "data", "preprocess", "update", "train", "classifier", "parallel"
