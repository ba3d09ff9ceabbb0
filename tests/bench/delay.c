/* A slow link: two network namespaces joined by two TUN devices, every packet held for half a round trip.
 *
 * `delay SECONDS` makes both namespaces and both devices itself, says "ready FD FD" (the namespaces of the
 * near and of the far side are /proc/PID/fd/FD) and forwards until its standard input ends or SECONDS are
 * over. Nothing has to be taken down: namespaces and devices go with the last process inside.
 *
 * The round trip depends on the far address, FAR_NET.x.y: 50 + (256 x + y) mod 51 milliseconds. Packets of
 * one address never overtake each other, and none is lost: when there is no room, the program ends.
 *
 * It works in ticks of half a millisecond, since a wake-up for every packet would take the processor from what
 * is measured. A packet waits for the next tick on each way: another half a millisecond per round trip.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum {
    NEAR, FAR, SIDES,
    LOWEST_MS = 50, CLASSES = 51,
    PACKET = 2048, /* the devices have Ethernet's MTU */
    ROOM = 65536,  /* packets on their way at once */
    TICK_NS = 500000, /* half a millisecond, so a delay one way is a whole number of ticks */
    SOURCE = 12, DESTINATION = 16, HEADER = 20,
    FAR_NET_0 = 198, FAR_NET_1 = 18,
};

struct packet {
    struct packet *next;
    int64_t due;
    int length;
    unsigned char bytes[PACKET];
};

struct queue {
    struct packet *first, *last;
};

static struct queue queues[SIDES][CLASSES]; /* by the side that a packet goes to, and its delay */
static struct packet *spare;
static int device[SIDES], name_space[SIDES];

static void fail(const char *what)
{
    fprintf(stderr, "delay: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * INT64_C(1000000000) + at.tv_nsec;
}

/* A namespace of our own with one TUN device in it. */
static void make_side(int side)
{
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    strcpy(request.ifr_name, "slow0");
    if (unshare(CLONE_NEWNET) != 0) {
        fail("no network namespace");
    }
    name_space[side] = open("/proc/self/ns/net", O_RDONLY);
    device[side] = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
    if (name_space[side] < 0 || device[side] < 0) {
        fail("no TUN device");
    }
    if (ioctl(device[side], TUNSETIFF, &request) != 0) {
        fail("no TUN device");
    }
}

/* The class of delay of a packet, -1 for what is not IPv4 between the two sides. */
static int class_of(const struct packet *packet, int from)
{
    const unsigned char *far = packet->bytes + (from == NEAR ? DESTINATION : SOURCE);
    if (packet->length < HEADER || packet->bytes[0] >> 4 != 4) {
        return -1;
    }
    if (far[0] != FAR_NET_0 || far[1] != FAR_NET_1) {
        return -1;
    }
    return (far[2] * 256 + far[3]) % CLASSES;
}

static void hold(struct packet *packet, int to, int class, int64_t tick)
{
    struct queue *queue = &queues[to][class];
    packet->due = tick + (LOWEST_MS + class) * TICK_NS;
    packet->next = NULL;
    if (queue->first == NULL) {
        queue->first = packet;
    } else {
        queue->last->next = packet;
    }
    queue->last = packet;
}

static void take(int from, int64_t tick)
{
    for (;;) {
        struct packet *packet = spare;
        if (packet == NULL) {
            errno = ENOBUFS;
            fail("too many packets on their way");
        }
        packet->length = (int)read(device[from], packet->bytes, PACKET);
        if (packet->length <= 0) {
            return;
        }
        int class = class_of(packet, from);
        if (class >= 0) {
            spare = packet->next;
            hold(packet, from == NEAR ? FAR : NEAR, class, tick);
        }
    }
}

/* Let go what is due at `tick`. */
static void release(int64_t tick)
{
    for (int to = NEAR; to < SIDES; to++) {
        for (int class = 0; class < CLASSES; class++) {
            struct queue *queue = &queues[to][class];
            while (queue->first != NULL && queue->first->due <= tick) {
                struct packet *packet = queue->first;
                if (write(device[to], packet->bytes, (size_t)packet->length) != packet->length) {
                    fail("a packet was lost");
                }
                queue->first = packet->next;
                packet->next = spare;
                spare = packet;
            }
        }
    }
}

/* 0 at the tick, 1 when standard input has ended before. */
static int wait_for(int64_t tick)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    int64_t left = tick - now();
    struct timespec pause = {.tv_nsec = left > 0 ? left : 0};
    int ready = ppoll(&input, 1, &pause, NULL);
    if (ready < 0) {
        fail("poll");
    }
    return ready;
}

static void forward(int seconds)
{
    int64_t tick = now(), until = tick + seconds * INT64_C(1000000000);
    while (tick < until && !wait_for(tick)) {
        release(tick);
        take(NEAR, tick);
        take(FAR, tick);
        tick += TICK_NS;
        if (now() > tick) {
            /* We were kept from running: what is late stays late, and the ticks stay in step. */
            tick += (now() - tick) / TICK_NS * TICK_NS;
        }
    }
}

int main(int argc, char **argv)
{
    struct packet *all = calloc(ROOM, sizeof *all);
    if (argc != 2 || all == NULL) {
        fprintf(stderr, "usage: delay SECONDS\n");
        return 2;
    }
    for (int i = 0; i < ROOM; i++) {
        all[i].next = spare;
        spare = &all[i];
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    prctl(PR_SET_TIMERSLACK, 1000UL);
    setpriority(PRIO_PROCESS, 0, -10); /* a link does not slow down when the processor is busy */
    make_side(NEAR);
    make_side(FAR);
    printf("ready %d %d\n", name_space[NEAR], name_space[FAR]);
    fflush(stdout);
    forward(atoi(argv[1]));
    return 0;
}
