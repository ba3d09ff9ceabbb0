// The same work by Go's crypto/tls: full handshakes, the chain and the staple verified.
//
// It reads a job from standard input and writes what it took to standard output, both JSON (programs.py).
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/crypto/ocsp"
)

type job struct {
	Endpoints   []string `json:"endpoints"`
	Name        string   `json:"name"`
	Anchors     string   `json:"anchors"`
	Concurrency int      `json:"concurrency"`
	// Cached: a chain and a staple that were seen before are compared byte by byte, as stapleguard does.
	Cached bool `json:"cached"`
}

type result struct {
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu"`
	Good    int64   `json:"good"`
	Memory  int64   `json:"memory"`
}

type prober struct {
	job    job
	roots  *x509.CertPool
	proved sync.Map
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		os.Exit(1)
	}
}

func run() error {
	p := &prober{roots: x509.NewCertPool()}
	if err := json.NewDecoder(os.Stdin).Decode(&p.job); err != nil {
		return err
	}
	pem, err := os.ReadFile(p.job.Anchors)
	if err != nil {
		return err
	}
	if !p.roots.AppendCertsFromPEM(pem) {
		return errors.New("no anchors")
	}
	before, begun := cpu(), time.Now()
	good := p.all()
	took := result{time.Since(begun).Seconds(), cpu() - before, good, peak()}
	return json.NewEncoder(os.Stdout).Encode(took)
}

func (p *prober) all() int64 {
	var next, good int64
	var group sync.WaitGroup
	config := &tls.Config{ServerName: p.job.Name, RootCAs: p.roots, InsecureSkipVerify: p.job.Cached}
	for i := 0; i < p.job.Concurrency; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for {
				at := atomic.AddInt64(&next, 1) - 1
				if at >= int64(len(p.job.Endpoints)) {
					return
				}
				if err := p.one(config, p.job.Endpoints[at]); err != nil {
					fmt.Fprintln(os.Stderr, "client:", err)
				} else {
					atomic.AddInt64(&good, 1)
				}
			}
		}()
	}
	group.Wait()
	return good
}

func (p *prober) one(config *tls.Config, endpoint string) error {
	raw, err := net.DialTimeout("tcp", endpoint, 5*time.Second)
	if err != nil {
		return err
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(5 * time.Second))
	connection := tls.Client(raw, config)
	if err := connection.Handshake(); err != nil {
		return err
	}
	return p.judge(connection.ConnectionState())
}

func (p *prober) judge(state tls.ConnectionState) error {
	if len(state.OCSPResponse) == 0 || len(state.PeerCertificates) < 2 {
		return errors.New("no staple or no chain")
	}
	if !p.job.Cached {
		return staple(state, state.VerifiedChains[0])
	}
	var key strings.Builder
	key.Write(state.OCSPResponse)
	for _, one := range state.PeerCertificates {
		key.Write(one.Raw)
	}
	if known, ok := p.proved.Load(key.String()); ok && time.Now().Before(known.(time.Time)) {
		return nil
	}
	intermediates := x509.NewCertPool()
	for _, one := range state.PeerCertificates[1:] {
		intermediates.AddCert(one)
	}
	options := x509.VerifyOptions{Roots: p.roots, Intermediates: intermediates, DNSName: p.job.Name}
	chains, err := state.PeerCertificates[0].Verify(options)
	if err != nil {
		return err
	}
	if err := staple(state, chains[0]); err != nil {
		return err
	}
	p.proved.Store(key.String(), time.Now().Add(time.Minute))
	return nil
}

func staple(state tls.ConnectionState, chain []*x509.Certificate) error {
	response, err := ocsp.ParseResponseForCert(state.OCSPResponse, chain[0], chain[1])
	if err != nil {
		return err
	}
	now := time.Now()
	if response.Status != ocsp.Good || now.Before(response.ThisUpdate) || now.After(response.NextUpdate) {
		return errors.New("the staple is not good now")
	}
	return nil
}

func cpu() float64 {
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}

// peak is the most memory that this process has had, in KiB.
func peak() int64 {
	text, _ := os.ReadFile("/proc/self/status")
	var kib int64
	for _, line := range strings.Split(string(text), "\n") {
		fmt.Sscanf(line, "VmHWM: %d kB", &kib)
	}
	return kib
}
