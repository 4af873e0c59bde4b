/* The bound of the packet queue: what a loop costs that does nothing with the packets.
 *
 *     bare_loop QUEUE [together]
 *
 * Receives up to 64 messages a call, accepts every packet, and sends the verdicts of what came with one call, each a message of its own, or
 * one for all of them (NFQNL_MSG_VERDICT_BATCH up to the last, which answers every packet before it, whatever it is). Says
 * "ready", goes on until its standard input ends, and then says how many packets it has accepted and how long it was on a processor, in
 * nanoseconds. Belongs to the benchmark alone: no part of the product is built from it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MANY = 64, STRIDE = 73728 + 1600 };

static char space[MANY][STRIDE];
static char verdicts[MANY * 32];

struct verdict {
    struct nlmsghdr header;
    struct nfgenmsg generic;
    struct nlattr attribute;
    struct nfqnl_msg_verdict_hdr value;
};

static int configure(int netlink, int queue, const void *attribute, size_t len)
{
    struct {
        struct nlmsghdr header;
        struct nfgenmsg generic;
        char rest[64];
    } request = {0};
    request.header.nlmsg_len = NLMSG_LENGTH(sizeof(struct nfgenmsg)) + len;
    request.header.nlmsg_type = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_CONFIG;
    request.header.nlmsg_flags = NLM_F_REQUEST;
    request.generic.res_id = htons(queue);
    memcpy(request.rest, attribute, len);
    return send(netlink, &request, request.header.nlmsg_len, 0);
}

int main(int argc, char **argv)
{
    int queue = argc > 1 ? atoi(argv[1]) : 0, together = argc > 2, size = 64 << 20, out = 8 << 20;
    int netlink = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
    setsockopt(netlink, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    setsockopt(netlink, SOL_SOCKET, SO_SNDBUFFORCE, &out, sizeof out);
    struct {
        struct nlattr attribute;
        struct nfqnl_msg_config_cmd value;
    } bind_queue = {{8, NFQA_CFG_CMD}, {NFQNL_CFG_CMD_BIND, 0, 0}};
    struct {
        struct nlattr attribute;
        struct nfqnl_msg_config_params value;
        char padding[3];
    } __attribute__((packed)) copy = {{9, NFQA_CFG_PARAMS}, {htonl(65531), NFQNL_COPY_PACKET}, {0}};
    struct {
        struct nlattr attribute;
        __be32 value;
    } length = {{8, NFQA_CFG_QUEUE_MAXLEN}, htonl(1024)};
    if (netlink < 0 || configure(netlink, queue, &bind_queue, sizeof bind_queue) < 0 || configure(netlink, queue, &copy, 12) < 0 ||
        configure(netlink, queue, &length, sizeof length) < 0) {
        perror("bare_loop");
        return 1;
    }
    static struct mmsghdr messages[MANY];
    static struct iovec parts[MANY];
    for (int at = 0; at < MANY; at++) {
        parts[at] = (struct iovec){space[at], STRIDE};
        messages[at].msg_hdr = (struct msghdr){.msg_iov = &parts[at], .msg_iovlen = 1};
    }
    puts("ready");
    fflush(stdout);
    unsigned long long accepted = 0;
    struct timespec from, to;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
    for (;;) {
        int count = recvmmsg(netlink, messages, MANY, MSG_DONTWAIT, NULL);
        char *end = verdicts;
        for (int at = 0; at < count; at++) {
            struct nlmsghdr *message = (struct nlmsghdr *)space[at];
            if (message->nlmsg_type != (NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET))
                continue;
            struct nlattr *attribute = (struct nlattr *)(space[at] + NLMSG_LENGTH(sizeof(struct nfgenmsg)));
            while ((attribute->nla_type & NLA_TYPE_MASK) != NFQA_PACKET_HDR)
                attribute = (struct nlattr *)((char *)attribute + NLA_ALIGN(attribute->nla_len));
            struct nfqnl_msg_packet_hdr *packet = (struct nfqnl_msg_packet_hdr *)(attribute + 1);
            struct verdict verdict = {
                {sizeof verdict, NFNL_SUBSYS_QUEUE << 8 | (together ? NFQNL_MSG_VERDICT_BATCH : NFQNL_MSG_VERDICT), NLM_F_REQUEST, 0, 0},
                {0, 0, htons(queue)},
                {12, NFQA_VERDICT_HDR},
                {htonl(1), packet->packet_id},
            };
            if (together)
                end = verdicts;
            memcpy(end, &verdict, sizeof verdict);
            end += sizeof verdict;
            accepted++;
        }
        if (end != verdicts)
            send(netlink, verdicts, end - verdicts, 0);
        if (count < MANY) {
            struct pollfd wait[2] = {{netlink, POLLIN, 0}, {0, POLLIN, 0}};
            poll(wait, 2, -1);
            if (wait[1].revents)
                break;
        }
    }
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
    printf("%llu %lld\n", accepted, (to.tv_sec - from.tv_sec) * 1000000000LL + to.tv_nsec - from.tv_nsec);
    return 0;
}
